// The free memory of a GPU from NVIDIA's management library, where it is installed: CUDA's own answer costs a context
// of some hundred megabytes on every GPU that is only looked at.
#pragma once

#include <cstdint>
#include <optional>

namespace infini::cuda {

std::optional<uint64_t> free_bytes_from_nvml(const char* pci_bus_id);

}  // namespace infini::cuda

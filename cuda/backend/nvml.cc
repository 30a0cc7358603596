#include "backend/nvml.h"

#include <dlfcn.h>

namespace infini::cuda {
namespace {

// The little of nvml.h that is needed here; its ABI is stable.
using NvmlDevice = void*;
struct NvmlMemory {
  unsigned long long total, free, used;
};

struct Nvml {
  int (*device_by_bus_id)(const char*, NvmlDevice*) = nullptr;
  int (*memory)(NvmlDevice, NvmlMemory*) = nullptr;

  Nvml() {
    void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    const auto initialise = reinterpret_cast<int (*)()>(dlsym(library, "nvmlInit_v2"));
    if (!initialise || initialise() != 0) return;
    device_by_bus_id = reinterpret_cast<decltype(device_by_bus_id)>(dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2"));
    memory = reinterpret_cast<decltype(memory)>(dlsym(library, "nvmlDeviceGetMemoryInfo"));
  }
};

}  // namespace

std::optional<uint64_t> free_bytes_from_nvml(const char* pci_bus_id) {
  static const Nvml& nvml = *new Nvml;
  NvmlDevice device = nullptr;
  NvmlMemory memory{};
  if (!nvml.device_by_bus_id || !nvml.memory || nvml.device_by_bus_id(pci_bus_id, &device) != 0 ||
      nvml.memory(device, &memory) != 0) {
    return std::nullopt;
  }
  return memory.free;
}

}  // namespace infini::cuda

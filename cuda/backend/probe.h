// Which GPUs this machine has, and why one cannot be used. Nothing here throws, whatever is or is not installed.
#pragma once

#include <string>
#include <vector>

#include "core/backend.h"

namespace infini::cuda {

// The oldest GPUs with the instructions that the kernels use: Ampere, compute capability 8.0.
constexpr int kLeastMajor = 8;

struct Probe {
  std::vector<std::string> refusals;  // for each GPU in CUDA's order: why it cannot be used; empty: it can
  std::string absence;                // why none can, in one sentence; empty: one can
};

Probe probe();

// What there is to know about one GPU, which exists.
DeviceInfo describe(int gpu);

}  // namespace infini::cuda

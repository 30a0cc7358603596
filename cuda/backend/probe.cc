#include "backend/probe.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "backend/nvml.h"
#include "backend/runtime.h"

namespace infini::cuda {
namespace {

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// "580.65.06 (CUDA 13.0)": the driver's own version, where it tells it, and the CUDA version that it supports.
std::string driver_text() {
  int version = 0;
  cudaDriverGetVersion(&version);
  const std::string supported = "CUDA " + version_text(version);
  std::ifstream file("/proc/driver/nvidia/version");
  std::string line;
  std::getline(file, line);
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    const bool is_number = word.find_first_not_of("0123456789.") == std::string::npos;
    if (is_number && word.find('.') != std::string::npos) return word + " (" + supported + ")";
  }
  return supported;
}

// Never CUDA's own sentence for "no driver", which speaks of a driver that is too old.
std::string refusal_of(cudaError_t error) {
  int driver = 0, needed = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&needed);
  if (error == cudaErrorInsufficientDriver && driver == 0) return "no NVIDIA driver is installed";
  if (error == cudaErrorInsufficientDriver) {
    return "the NVIDIA driver is too old: it supports CUDA " + version_text(driver) + ", and CUDA " +
           std::to_string(needed / 1000) + ".0 is needed";
  }
  if (error == cudaErrorNoDevice) return "there is a driver but no NVIDIA GPU that this process may use";
  return std::string("CUDA cannot start: ") + cudaGetErrorName(error) + " (" + cudaGetErrorString(error) + ")";
}

std::string capability_text(const cudaDeviceProp& properties) {
  return std::to_string(properties.major) + "." + std::to_string(properties.minor);
}

std::string refusal_of(const cudaDeviceProp& properties) {
  if (properties.major >= kLeastMajor) return "";
  return std::string("the GPU ") + properties.name + " has compute capability " + capability_text(properties) +
         ", and " + std::to_string(kLeastMajor) + ".0 is needed";
}

uint64_t free_bytes(int gpu) {
  char bus_id[32] = "";
  if (cudaDeviceGetPCIBusId(bus_id, int(sizeof(bus_id)), gpu) == cudaSuccess) {
    if (const auto bytes = free_bytes_from_nvml(bus_id)) return *bytes;
  }
  size_t available = 0, total = 0;
  if (cudaSetDevice(gpu) != cudaSuccess || cudaMemGetInfo(&available, &total) != cudaSuccess) return 0;
  return available;
}

}  // namespace

DeviceInfo describe(int gpu) {
  const Inside inside;
  DeviceInfo info;
  info.id = "cuda:" + std::to_string(gpu);
  info.backend = "cuda";
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, gpu) == cudaSuccess) {
    info.name = properties.name;
    info.compute_capability = capability_text(properties);
    info.total_bytes = properties.totalGlobalMem;
  }
  info.free_bytes = std::min(free_bytes(gpu), info.total_bytes);  // a part of a GPU may be told what the whole one has
  info.driver = driver_text();
  cudaGetLastError();  // what failed here is missing in the answer
  return info;
}

Probe probe() {
  const Inside inside;
  Probe found;
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count == 0) error = cudaErrorNoDevice;
  for (int gpu = 0; gpu < count && error == cudaSuccess; ++gpu) {
    cudaDeviceProp properties;
    error = cudaGetDeviceProperties(&properties, gpu);
    if (error != cudaSuccess) break;
    found.refusals.push_back(refusal_of(properties));
  }
  if (error != cudaSuccess) {
    cudaGetLastError();
    return {{}, refusal_of(error)};
  }
  const bool usable = std::find(found.refusals.begin(), found.refusals.end(), "") != found.refusals.end();
  if (!usable) found.absence = found.refusals.front();
  return found;
}

}  // namespace infini::cuda

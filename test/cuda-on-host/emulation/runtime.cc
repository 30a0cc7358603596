// The runtime API: errors, the device and its memory.
#include "runtime.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>

#include "../../faults/control.h"
#include "device_memory.h"
#include "machine.h"
#include "sanitizer.h"

namespace infini::emulation {

Settings settings;

namespace {

uint64_t environment_number(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text && *text ? std::strtoull(text, nullptr, 10) : otherwise;
}

// What the machine is like, for tests of what is said of it.
const int driver_version = int(environment_number("INFINI_EMULATED_DRIVER", 13000));       // 0: none
const int device_count = int(environment_number("INFINI_EMULATED_DEVICES", 1));            // at most 1
const int capability = int(environment_number("INFINI_EMULATED_CAPABILITY", 80));          // 75 is 7.5
const bool has_code = environment_number("INFINI_EMULATED_NO_CODE", 0) == 0;               // for the device

struct Runtime {
  cudaError_t sticky = cudaSuccess;
  std::string report;
  std::deque<std::string> explanations;  // what cudaGetErrorString has returned: callers keep the pointers
  uint64_t doomed_launch = environment_number("INFINI_EMULATED_FAULT", 0);  // 0: none
  uint64_t doomed_copy = environment_number("INFINI_EMULATED_COPY_FAULT", 0);
  uint64_t launches = 0, copies = 0;
  std::map<const void*, size_t> shared_limits;  // by kernel
  std::map<void*, size_t> pinned;
};
Runtime& runtime = *new Runtime;

thread_local cudaError_t latest_error = cudaSuccess;

struct ErrorText {
  cudaError_t error;
  const char *name, *text;
};
constexpr ErrorText kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const ErrorText& text_of(cudaError_t error) {
  for (const ErrorText& entry : kErrors) {
    if (entry.error == error) return entry;
  }
  return kErrors[std::size(kErrors) - 1];
}

// Every call of the API: one at a time, and none after a sticky error.
template <class Body> cudaError_t call(Body body) {
  std::lock_guard lock(device_mutex);
  if (runtime.sticky != cudaSuccess) return note(runtime.sticky);
  return note(body());
}

std::string check_side(const char* what, const void* address, size_t bytes, bool device) {
  if (device == is_device_address(address) && (!device || is_device_range(address, bytes))) return "";
  return std::string(what) +
         (device ? " is not " + std::to_string(bytes) + " bytes of device memory: " + describe_device_address(address)
                 : " is device memory, but was said to be the host's");
}

cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (bytes == 0) return cudaSuccess;
  const bool automatic = kind == cudaMemcpyDefault;
  const bool from_device =
      automatic ? is_device_address(from) : kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const bool to_device =
      automatic ? is_device_address(to) : kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  std::string problem = check_side("the target of a copy", to, bytes, to_device);
  if (problem.empty()) problem = check_side("the source of a copy", from, bytes, from_device);
  if (!problem.empty()) return raise(cudaErrorInvalidValue, problem);
  std::memmove(to, from, bytes);
  return cudaSuccess;
}

bool is_pageable(const void* address) {
  if (is_device_address(address)) return false;
  auto block = runtime.pinned.upper_bound(const_cast<void*>(address));
  if (block == runtime.pinned.begin()) return true;
  --block;
  return static_cast<const char*>(address) >= static_cast<const char*>(block->first) + block->second;
}

cudaError_t fill(void* to, int value, size_t bytes) {
  if (bytes == 0) return cudaSuccess;
  const std::string problem = check_side("the target of cudaMemset", to, bytes, true);
  if (!problem.empty()) return raise(cudaErrorInvalidValue, problem);
  std::memset(to, value, bytes);
  return cudaSuccess;
}

constexpr int kVersion = 13000;  // of the runtime
constexpr int kMultiprocessors = 4;

}  // namespace

Settings::Settings()
    : lazy_streams(Lazy(environment_number("INFINI_EMULATED_LAZY", 0) % 3)),
      stack_bytes(kAddressSanitizer ? 512 * 1024 : 128 * 1024),
      device_memory(environment_number("INFINI_EMULATED_MEMORY", uint64_t(1) << 30)) {}

cudaError_t sticky_error() { return runtime.sticky; }

cudaError_t note(cudaError_t error) {
  if (error != cudaSuccess) latest_error = error;
  return error;
}

cudaError_t raise(cudaError_t error, const std::string& report) {
  runtime.report = report;
  if (settings.throw_errors) throw EmulationError(report);
  return note(error);
}

cudaError_t raise_sticky(cudaError_t error, const std::string& report) {
  raise(error, report);
  runtime.sticky = error;
  return error;
}

size_t shared_limit(const void* kernel) {
  const auto found = runtime.shared_limits.find(kernel);
  return found == runtime.shared_limits.end() ? kSharedPerBlock : found->second;
}

size_t shared_total_limit(const void* kernel) {
  return runtime.shared_limits.contains(kernel) ? kSharedPerBlockOptin : kSharedPerBlock;
}

bool runs_out() {
  faults::Control* control = faults::control();
  return control && control->device.next_fails();
}

bool launch_is_doomed() { return ++runtime.launches == runtime.doomed_launch; }

void inject_fault(uint64_t launches) {
  std::lock_guard lock(device_mutex);
  runtime.doomed_launch = runtime.launches + launches + 1;
}

void clear_errors() {
  std::lock_guard lock(device_mutex);
  runtime.sticky = latest_error = cudaSuccess;
}

std::string last_report() {
  std::lock_guard lock(device_mutex);
  return runtime.report;
}

Statistics statistics() {
  std::lock_guard lock(device_mutex);
  Statistics current = machine.statistics;
  current.allocations = device_allocations();
  current.allocated_bytes = device_bytes();
  current.host_allocations = runtime.pinned.size();
  return current;
}

}  // namespace infini::emulation

using namespace infini::emulation;

extern "C" {

const char* cudaGetErrorName(cudaError_t error) { return text_of(error).name; }

const char* cudaGetErrorString(cudaError_t error) {
  std::lock_guard lock(device_mutex);
  if (error != runtime.sticky || error == cudaSuccess) return text_of(error).text;
  const std::string text = text_of(error).text + (" (" + runtime.report + ")");
  if (runtime.explanations.empty() || runtime.explanations.back() != text) runtime.explanations.push_back(text);
  return runtime.explanations.back().c_str();
}

cudaError_t cudaGetLastError() {
  std::lock_guard lock(device_mutex);
  const cudaError_t error = cudaPeekAtLastError();
  latest_error = cudaSuccess;
  return error;
}

cudaError_t cudaPeekAtLastError() {
  std::lock_guard lock(device_mutex);
  return runtime.sticky != cudaSuccess ? runtime.sticky : latest_error;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = driver_version;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  return call([&] {
    *count = driver_version < kVersion ? 0 : device_count;
    if (driver_version < kVersion) return cudaErrorInsufficientDriver;
    return *count == 0 ? cudaErrorNoDevice : cudaSuccess;
  });
}

cudaError_t cudaGetDevice(int* device) {
  return call([&] {
    *device = 0;
    return cudaSuccess;
  });
}

cudaError_t cudaSetDevice(int device) {
  return call([&] { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return call([&] {
    if (device != 0) return cudaErrorInvalidDevice;
    *properties = {};
    std::strcpy(properties->name, "CUDA emulation on the host");
    properties->totalGlobalMem = settings.device_memory;
    properties->sharedMemPerBlock = kSharedPerBlock;
    properties->sharedMemPerBlockOptin = kSharedPerBlockOptin;
    properties->sharedMemPerMultiprocessor = kSharedPerBlockOptin + 1024;
    properties->major = capability / 10;
    properties->minor = capability % 10;
    properties->multiProcessorCount = kMultiprocessors;
    properties->maxThreadsPerBlock = 1024;
    properties->warpSize = 32;
    properties->l2CacheSize = 4 << 20;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return call([&] {
    if (device != 0) return cudaErrorInvalidDevice;
    switch (attribute) {
      case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
      case cudaDevAttrWarpSize: *value = 32; break;
      case cudaDevAttrMultiProcessorCount: *value = kMultiprocessors; break;
      case cudaDevAttrComputeCapabilityMajor: *value = capability / 10; break;
      case cudaDevAttrComputeCapabilityMinor: *value = capability % 10; break;
      case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = kSharedPerBlockOptin; break;
      default: return cudaErrorInvalidValue;
    }
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int bytes, int device) {
  return call([&] {
    if (device != 0 || bytes < 13) return cudaErrorInvalidValue;
    std::strcpy(text, "0000:00:00.0");
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return call([] { return breaks_capture() ? cudaErrorStreamCaptureUnsupported : finish_all(); });
}

cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  return call([&] {
    *total = settings.device_memory;
    *available = *total > device_bytes() ? *total - device_bytes() : 0;
    return cudaSuccess;
  });
}

cudaError_t cudaMalloc(void** address, size_t bytes) {
  return call([&] {
    if (breaks_capture()) return cudaErrorStreamCaptureUnsupported;
    *address = bytes && !runs_out() ? allocate_device(bytes) : nullptr;
    return *address || !bytes ? cudaSuccess : cudaErrorMemoryAllocation;
  });
}

cudaError_t cudaFree(void* address) {
  return call([&] {
    if (!address) return cudaSuccess;
    if (breaks_capture()) return cudaErrorStreamCaptureUnsupported;
    if (const cudaError_t error = finish_all()) return error;
    return free_device(address) ? cudaSuccess : raise(cudaErrorInvalidValue, "cudaFree of what is no live allocation");
  });
}

cudaError_t cudaMallocHost(void** address, size_t bytes) { return cudaHostAlloc(address, bytes, cudaHostAllocDefault); }

cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) {
  return call([&] {
    if (breaks_capture()) return cudaErrorStreamCaptureUnsupported;
    *address = nullptr;
    if (bytes == 0) return cudaSuccess;
    if (runs_out() || posix_memalign(address, 256, bytes) != 0) return cudaErrorMemoryAllocation;
    if (settings.poison) std::memset(*address, 0xFF, bytes);
    runtime.pinned[*address] = bytes;
    return cudaSuccess;
  });
}

cudaError_t cudaFreeHost(void* address) {
  return call([&] {
    if (!address) return cudaSuccess;
    if (const cudaError_t error = finish_all()) return error;
    if (!runtime.pinned.erase(address)) {
      return raise(cudaErrorInvalidValue, "cudaFreeHost of what is no live allocation");
    }
    std::free(address);
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return call([&] {
    if (breaks_capture()) return cudaErrorStreamCaptureUnsupported;
    const cudaError_t error = finish_all();
    return error != cudaSuccess ? error : copy(to, from, bytes, kind);
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return call([&] {
    const bool doomed = ++runtime.copies == runtime.doomed_copy;
    const cudaError_t error = enqueue(stream, [=] {
      return doomed ? raise_sticky(cudaErrorLaunchFailure, "a fault was asked for") : copy(to, from, bytes, kind);
    });
    // Pageable memory is read, or written, before the call returns.
    return error == cudaSuccess && (is_pageable(to) || is_pageable(from)) ? finish(stream) : error;
  });
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return call([&] {
    if (breaks_capture()) return cudaErrorStreamCaptureUnsupported;
    const cudaError_t error = finish_all();
    return error != cudaSuccess ? error : fill(to, value, bytes);
  });
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return call([&] { return enqueue(stream, [=] { return fill(to, value, bytes); }); });
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  return call([&] {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaErrorInvalidValue;
    if (value < 0 || size_t(value) > kSharedPerBlockOptin) return cudaErrorInvalidValue;
    runtime.shared_limits[kernel] = size_t(value);
    return cudaSuccess;
  });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void*) {
  return call([] { return has_code ? cudaSuccess : cudaErrorNoKernelImageForDevice; });
}

}  // extern "C"

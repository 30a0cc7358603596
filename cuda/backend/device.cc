#include "backend/device.h"

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "core/memory_budget.h"
#include "launch.h"

namespace infini::cuda {
namespace {

constexpr size_t kMostIdlePinned = 256 << 20;
constexpr auto kSpin = std::chrono::milliseconds(1);  // waking up a thread takes longer than many a decoding step

[[noreturn]] void throw_lost(const std::string& id, cudaError_t error) {
  throw Error(ErrorCode::Device, "The CUDA device '" + id + "' failed: " + cudaGetErrorName(error) + " (" +
                                     cudaGetErrorString(error) + "); nothing on it can be used any more");
}

class DeviceSource final : public Source {
 public:
  explicit DeviceSource(Device& device) : device_(device) {}
  void* allocate(size_t bytes) override {
    const Device::Scope scope(device_);
    device_.require_working();
    void* data = nullptr;
    const cudaError_t error = cudaMalloc(&data, bytes);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return nullptr;
    }
    device_.check(error);
    return data;
  }
  void release(void* data) noexcept override {
    const Device::Scope scope(device_);
    cudaFree(data);
  }
  uint64_t available() override {
    const Device::Scope scope(device_);
    size_t available = 0, total = 0;
    device_.check(cudaMemGetInfo(&available, &total));
    return available;
  }

 private:
  Device& device_;
};

class PinnedSource final : public Source {
 public:
  explicit PinnedSource(Device& device) : device_(device) {}
  void* allocate(size_t bytes) override {
    require_memory(bytes, "a host buffer or the tensors of one call", device_.ledger);
    const Device::Scope scope(device_);
    device_.require_working();
    void* data = nullptr;
    const cudaError_t error = cudaHostAlloc(&data, bytes, cudaHostAllocPortable);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return nullptr;
    }
    device_.check(error);
    return data;
  }
  void release(void* data) noexcept override {
    const Device::Scope scope(device_);
    cudaFreeHost(data);
  }
  uint64_t available() override { return available_memory(); }

 private:
  Device& device_;
};

int count_multiprocessors(int index) {
  int count = 1;
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, index);
  return count;
}

size_t total_bytes(int index) {
  size_t available = 0, total = 0;
  cudaSetDevice(index);
  cudaMemGetInfo(&available, &total);
  return total;
}

}  // namespace

Device::Device(int index, Ledger& ledger)
    : index(index),
      id("cuda:" + std::to_string(index)),
      multiprocessors(count_multiprocessors(index)),
      ledger(ledger),
      memory(ledger, std::make_unique<DeviceSource>(*this), std::min<size_t>(512 << 20, total_bytes(index) / 16)),
      pinned(ledger, std::make_unique<PinnedSource>(*this), kMostIdlePinned),
      most_workspace_(std::clamp<size_t>(total_bytes(index) / 256, 64 << 20, 256 << 20)) {
  const Scope scope(*this);
  if (const cudaError_t error = load_code()) {
    cudaGetLastError();
    throw Error(ErrorCode::NoDevice, "Expected a GPU that can run this build's kernels for '" + id + "' but received " +
                                         cudaGetErrorName(error) + " (" + cudaGetErrorString(error) +
                                         "); 'cpu' is available");
  }
  for (OwnedStream* stream : {&computing, &uploading, &downloading}) {
    check(cudaStreamCreateWithFlags(&stream->handle, cudaStreamNonBlocking));
  }
  check(cudaEventCreateWithFlags(&unwaited_.handle, cudaEventDisableTiming));
  Inside::close_at_exit();
}

void Device::check(cudaError_t error) {
  if (error == cudaSuccess) return;
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error(ErrorCode::OutOfMemory, "Expected room for CUDA's own needs on '" + id + "' but its memory is full");
  }
  lose(error);
  throw_lost(id, error);
}

void Device::require_working() const {
  if (const auto error = cudaError_t(lost_.load())) throw_lost(id, error);
}

void Device::lose(cudaError_t error) noexcept {
  int expected = cudaSuccess;
  lost_.compare_exchange_strong(expected, error);  // the first is the cause, later ones are its consequences
}

void Device::finish_copy(cudaStream_t stream, void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  require_working();
  order_after_computing(stream);
  check(cudaMemcpyAsync(to, from, bytes, kind, stream));
  check(cudaStreamSynchronize(stream));
}

void Device::upload(void* to, const void* from, size_t bytes) {
  finish_copy(uploading, to, from, bytes, cudaMemcpyHostToDevice);
}

void Device::download(void* to, const void* from, size_t bytes) {
  finish_copy(downloading, to, from, bytes, cudaMemcpyDeviceToHost);
}

void Device::clear(void* data, size_t bytes) {
  require_working();
  check(cudaMemsetAsync(data, 0, bytes, computing));
  check(cudaEventRecord(unwaited_, computing));
}

void Device::copy(void* to, const void* from, size_t bytes) {
  require_working();
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, computing));
  check(cudaEventRecord(unwaited_, computing));
}

void Device::retire(Block /*block*/) { check(cudaEventRecord(unwaited_, computing)); }

void Device::wait(cudaEvent_t event) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  cudaError_t error = cudaEventQuery(event);
  while (error == cudaErrorNotReady && std::chrono::steady_clock::now() < deadline) error = cudaEventQuery(event);
  if (error == cudaErrorNotReady) {
    cudaGetLastError();  // "not ready" is no error
    error = cudaEventSynchronize(event);
  }
  check(error);
}

void Device::drain() noexcept {
  for (const OwnedStream* stream : {&uploading, &computing, &downloading}) cudaStreamSynchronize(*stream);
}

void Device::reserve_workspace(size_t bytes) {
  if (workspace_.bytes() >= bytes) return;
  Block larger = memory.take(bytes, &Ledger::scratch_bytes, "the scratch of one call");
  std::swap(workspace_, larger);
  retire(std::move(larger));
}

void* Device::decode_scratch(size_t bytes) {
  if (decode_scratch_.bytes() < bytes) {
    Block larger = memory.take(bytes, &Ledger::scratch_bytes, "the scratch of one call");
    clear(larger.data(), bytes);
    std::swap(decode_scratch_, larger);
    retire(std::move(larger));
  }
  return decode_scratch_.data();
}

}  // namespace infini::cuda

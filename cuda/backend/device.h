// One GPU: its streams, its memory, and whether it still works.
//
// Everything is computed on one CUDA stream, in the order in which it was enqueued; so scratch that all calls share
// needs no other order. Large inputs travel on a second stream and large outputs on a third, tied to the first by
// events. `queue` is held by whoever enqueues what must stay together. It is not held while waiting for results.
//
// An error that is not want of memory means that what the GPU did or will do cannot be trusted: the device is lost, and
// every call on it fails from then on.
#pragma once

#include <atomic>
#include <mutex>
#include <string>

#include "backend/pool.h"
#include "backend/runtime.h"

namespace infini::cuda {

// What CUDA made, and destroys with whoever holds it.
template <class Handle, auto destroy> struct Owned {
  Owned() = default;
  Owned(const Owned&) = delete;
  ~Owned() {
    if (!handle) return;
    const Inside inside;
    destroy(handle);
  }
  operator Handle() const { return handle; }

  Handle handle = nullptr;
};
using OwnedEvent = Owned<cudaEvent_t, cudaEventDestroy>;
using OwnedStream = Owned<cudaStream_t, cudaStreamDestroy>;

class Device {
 public:
  Device(int index, Ledger& ledger);
  Device(const Device&) = delete;

  // The calling thread's CUDA calls are for this device, until the end of the scope. It may be a thread of JavaScript,
  // on which others use CUDA too.
  class Scope {
   public:
    explicit Scope(const Device& device) : index_(device.index) {
      cudaGetDevice(&before_);
      if (before_ != index_) cudaSetDevice(index_);
    }
    ~Scope() {
      if (before_ != index_) cudaSetDevice(before_);
    }
    Scope(const Scope&) = delete;

   private:
    const Inside inside_;
    const int index_;
    int before_ = 0;
  };

  // Throws Error for anything but success: OutOfMemory, or Device, after which the device is lost.
  void check(cudaError_t error);
  void require_working() const;  // throws Error(Device) when it is lost
  void lose(cudaError_t error) noexcept;

  // Within a scope, and complete when they return. `from` and `to` on the host may be any memory.
  void upload(void* to, const void* from, size_t bytes);
  void download(void* to, const void* from, size_t bytes);
  void wait(cudaEvent_t event);
  // Whatever is enqueued on any stream, done or failed.
  void drain() noexcept;

  // Within a scope: enqueued behind everything that computes, and not waited for. Later copies come after it.
  void clear(void* data, size_t bytes);
  void copy(void* to, const void* from, size_t bytes);
  // Copies that were not enqueued behind everything that computes go behind what clear() and copy() have enqueued.
  void order_after_computing(cudaStream_t stream) { check(cudaStreamWaitEvent(stream, unwaited_, 0)); }

  // Within a scope and under the queue's lock: gives up a block that what is enqueued still computes with.
  void retire(Block block);

  // Scratch of the kernels of one launch, shared by all that are enqueued; within a scope and under the queue's lock.
  void reserve_workspace(size_t bytes);
  const Block& workspace() const { return workspace_; }
  // The same for the decoding kernel, which finds it zeroed and leaves it so.
  void* decode_scratch(size_t bytes);
  size_t most_workspace() const { return most_workspace_; }  // that calls may ask for to run together

  const int index;
  const std::string id;
  const int multiprocessors;
  Ledger& ledger;
  Pool memory, pinned;
  OwnedStream computing, uploading, downloading;
  std::mutex queue;
  std::atomic<int> sharing{1};  // calls in the last round that want as much of the GPU as they can get

 private:
  void finish_copy(cudaStream_t stream, void* to, const void* from, size_t bytes, cudaMemcpyKind kind);

  std::atomic<int> lost_{cudaSuccess};
  OwnedEvent unwaited_;
  Block workspace_, decode_scratch_;
  size_t most_workspace_;
};

}  // namespace infini::cuda

// A block on the device and its twin on the host: what a launch needs goes down in one copy, what came of it comes
// back in one. Parts are placed first, then the memory for all of them is taken.
#pragma once

#include "backend/device.h"

namespace infini::cuda {

class Mail {
 public:
  explicit Mail(Device& device) : device_(device) {}

  void clear() { bytes_ = 0; }
  // Where a part lies, in bytes from the beginning: a multiple of 16.
  size_t place(size_t bytes) {
    const size_t at = bytes_;
    bytes_ += (bytes + 15) / 16 * 16;
    return at;
  }
  size_t bytes() const { return bytes_; }
  // Room for everything that was placed. What was here before is gone; nothing may be under way.
  void open() {
    if (host_.bytes() >= bytes_) return;
    host_ = Block();
    block_ = Block();
    Block host = device_.pinned.take(bytes_, &Ledger::scratch_bytes, "the scratch of one call");
    block_ = device_.memory.take(bytes_, &Ledger::scratch_bytes, "the scratch of one call");
    host_ = std::move(host);
  }

  template <class T> T* host(size_t at) const { return reinterpret_cast<T*>(host_.data() + at); }
  template <class T> T* device(size_t at) const { return reinterpret_cast<T*>(block_.data() + at); }

  void send(size_t begin, size_t end, cudaStream_t stream) const {
    device_.check(cudaMemcpyAsync(device<char>(begin), host<char>(begin), end - begin, cudaMemcpyHostToDevice, stream));
  }
  void fetch(size_t begin, size_t end, cudaStream_t stream) const {
    device_.check(cudaMemcpyAsync(host<char>(begin), device<char>(begin), end - begin, cudaMemcpyDeviceToHost, stream));
  }

 private:
  Device& device_;
  size_t bytes_ = 0;
  Block host_, block_;
};

}  // namespace infini::cuda

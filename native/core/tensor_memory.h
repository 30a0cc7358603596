// Memory for tensors that outlives single calls: device tensors, host buffers, and the staging of calls.
// Shared: JavaScript holds it, and so does every call that uses it; it is freed when the last of them lets go.
#pragma once

#include <cstddef>
#include <cstdint>

namespace infini {

// Host: the processor can read and write it. Device: only the device can; on the CPU both are ordinary memory.
enum class Place : uint8_t { Host, Device };

class TensorMemory {
 public:
  TensorMemory(void* data, size_t bytes, Place place) : data_(data), bytes_(bytes), place_(place) {}
  virtual ~TensorMemory() = default;
  TensorMemory(const TensorMemory&) = delete;
  TensorMemory& operator=(const TensorMemory&) = delete;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Place place() const { return place_; }

 private:
  void* const data_;
  const size_t bytes_;
  const Place place_;
};

}  // namespace infini

// Device memory for tests: owned by the array, poisoned from the start, copied as std::vector.
//
//   DeviceArray<T>   `size` values of T. Never written, every byte is 0xff: NaN in every floating type, -1 as an integer.
//   ElementArray     the same for tensors whose element type is known at run time; the host sees doubles.
// Every copy waits for the device, so a download after a launch sees its results. An error of the runtime is thrown.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "launch.h"

namespace infini::cuda {

inline void expect_success(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

template <class T> class DeviceArray {
 public:
  static_assert(std::is_trivially_copyable_v<T>);

  DeviceArray() = default;
  explicit DeviceArray(size_t size) : size_(size) {
    if (size == 0) return;
    void* data = nullptr;
    expect_success(cudaMalloc(&data, bytes()));
    data_ = static_cast<T*>(data);
    poison();
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) { upload(values); }

  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceArray() {
    if (data_ != nullptr) cudaFree(data_);
  }

  T* get() const { return data_; }  // null when the array is empty
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }

  void poison() {
    if (size_ > 0) expect_success(cudaMemset(data_, 0xff, bytes()));
  }
  void upload(const std::vector<T>& values) {
    if (values.size() != size_) throw std::logic_error("upload of another size");
    if (size_ > 0) expect_success(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice));
  }
  std::vector<T> download() const {
    std::vector<T> values(size_);
    expect_success(cudaDeviceSynchronize());
    if (size_ > 0) expect_success(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

constexpr size_t element_bytes(Element element) { return element == Element::Float32 ? 4 : 2; }

// `x` as the element's bits, in the low bytes, and back.
inline uint32_t encode(Element element, double x) {
  const float value = static_cast<float>(x);
  uint32_t bits = 0;
  if (element == Element::Float32) {
    static_assert(sizeof(value) == sizeof(bits));
    __builtin_memcpy(&bits, &value, sizeof(bits));
  } else if (element == Element::BFloat16) {
    const __nv_bfloat16 half = __float2bfloat16_rn(value);
    __builtin_memcpy(&bits, &half, sizeof(half));
  } else {
    const __half half = __float2half_rn(value);
    __builtin_memcpy(&bits, &half, sizeof(half));
  }
  return bits;
}
inline double decode(Element element, uint32_t bits) {
  if (element == Element::Float32) {
    float value;
    __builtin_memcpy(&value, &bits, sizeof(value));
    return value;
  }
  if (element == Element::BFloat16) {
    __nv_bfloat16 half;
    __builtin_memcpy(static_cast<void*>(&half), &bits, sizeof(half));
    return __bfloat162float(half);
  }
  __half half;
  __builtin_memcpy(static_cast<void*>(&half), &bits, sizeof(half));
  return __half2float(half);
}

// What remains of a value in a tensor of this type: what the float64 reference must be given.
inline double rounded(Element element, double x) { return decode(element, encode(element, x)); }
inline std::vector<double> rounded(Element element, std::vector<double> values) {
  for (double& x : values) x = rounded(element, x);
  return values;
}

class ElementArray {
 public:
  ElementArray() = default;
  ElementArray(Element element, size_t size) : element_(element), bytes_(size * element_bytes(element)) {}
  ElementArray(Element element, const std::vector<double>& values) : ElementArray(element, values.size()) { upload(values); }

  void* get() const { return bytes_.get(); }
  size_t size() const { return bytes_.size() / element_bytes(element_); }
  Element element() const { return element_; }

  void poison() { bytes_.poison(); }
  void upload(const std::vector<double>& values) {
    const size_t width = element_bytes(element_);
    std::vector<unsigned char> bytes(values.size() * width);
    for (size_t i = 0; i < values.size(); ++i) {
      const uint32_t bits = encode(element_, values[i]);
      __builtin_memcpy(&bytes[i * width], &bits, width);
    }
    bytes_.upload(bytes);
  }
  std::vector<double> download() const {
    const size_t width = element_bytes(element_);
    const std::vector<unsigned char> bytes = bytes_.download();
    std::vector<double> values(size());
    for (size_t i = 0; i < values.size(); ++i) {
      uint32_t bits = 0;
      __builtin_memcpy(&bits, &bytes[i * width], width);
      values[i] = decode(element_, bits);
    }
    return values;
  }

 private:
  Element element_ = Element::Float32;
  DeviceArray<unsigned char> bytes_;
};

}  // namespace infini::cuda

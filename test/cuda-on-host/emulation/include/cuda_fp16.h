// Stand-in for CUDA's header of the same name: what the kernels use of float16. No implicit conversions and no
// arithmetic, so that every rounding shows in the source.
#pragma once

#include <cuda_runtime.h>

#include "emulation/half_conversions.h"

struct __half {
  __half() = default;
  explicit __half(float value) : __x(infini::emulation::float16_bits(value)) {}
  explicit operator float() const { return infini::emulation::from_float16_bits(__x); }
  unsigned short __x;
};
struct alignas(4) __half2 {
  __half x, y;
};

inline __half __float2half_rn(float value) { return __half(value); }
inline float __half2float(__half value) { return float(value); }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline unsigned short __half_as_ushort(__half value) { return value.__x; }
inline __half __ushort_as_half(unsigned short bits) {
  __half value;
  value.__x = bits;
  return value;
}

// Stand-in for CUDA's header of the same name: what the kernels use of bfloat16. No implicit conversions and no
// arithmetic, so that every rounding shows in the source.
#pragma once

#include <cuda_runtime.h>

#include "emulation/half_conversions.h"

struct __nv_bfloat16 {
  __nv_bfloat16() = default;
  explicit __nv_bfloat16(float value) : __x(infini::emulation::bfloat16_bits(value)) {}
  explicit operator float() const { return infini::emulation::from_bfloat16_bits(__x); }
  unsigned short __x;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

inline __nv_bfloat16 __float2bfloat16_rn(float value) { return __nv_bfloat16(value); }
inline float __bfloat162float(__nv_bfloat16 value) { return float(value); }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.__x; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  __nv_bfloat16 value;
  value.__x = bits;
  return value;
}

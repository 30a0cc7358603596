// The element types of tensors and how they become float32 and back.
//
// Everything is rounded to the nearest, ties to even. A float32 number splits into two bfloat16, high + low, that
// together miss it by 2^-17; pairs of 16-bit elements travel in one register, the lower index in the lower half.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "ptx.cuh"

namespace infini::cuda {

using bfloat16 = __nv_bfloat16;
using float16 = __half;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(float16 x) { return __half2float(x); }

template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bfloat16 from_float<bfloat16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ __forceinline__ float16 from_float<float16>(float x) { return __float2half_rn(x); }

// Two elements in one register, the first in the low half.
__device__ __forceinline__ uint32_t pack(bfloat16 low, bfloat16 high) {
  return uint32_t(__bfloat16_as_ushort(low)) | uint32_t(__bfloat16_as_ushort(high)) << 16;
}
__device__ __forceinline__ uint32_t pack(float16 low, float16 high) {
  return uint32_t(__half_as_ushort(low)) | uint32_t(__half_as_ushort(high)) << 16;
}

// Both rounded to nearest, by one instruction.
template <class T> __device__ __forceinline__ uint32_t pack_rounded(float low, float high);
template <> __device__ __forceinline__ uint32_t pack_rounded<bfloat16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return pack(pair.x, pair.y);
}
template <> __device__ __forceinline__ uint32_t pack_rounded<float16>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return pack(pair.x, pair.y);
}

template <class T> __device__ __forceinline__ float2 unpack(uint32_t pair);
template <> __device__ __forceinline__ float2 unpack<bfloat16>(uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}
template <> __device__ __forceinline__ float2 unpack<float16>(uint32_t pair) {
  return {to_float(__ushort_as_half(uint16_t(pair))), to_float(__ushort_as_half(uint16_t(pair >> 16)))};
}

// x as the sum of two bfloat16. The high one is cut, not rounded: exact remainder, and no overflow at the top of the range.
struct Bfloat16Pair {
  bfloat16 high, low;
};
__device__ __forceinline__ Bfloat16Pair split(float x) {
  const float high = __uint_as_float(__float_as_uint(x) & 0xffff0000u);
  return {__ushort_as_bfloat16(uint16_t(__float_as_uint(x) >> 16)), __float2bfloat16_rn(x - high)};
}

}  // namespace infini::cuda

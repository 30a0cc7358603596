// Absorbing segments, as the kernels of this folder share the work between them.
//
// With sigma = sigma(K) of a segment of N tokens, D = diag(sigma z) and z, M as they were before the segment, the delta
// rule M' = M + sigma^T (V - D^-1 sigma M) is
//   M' = M + B - G (M / z),   B = sigma^T V,   G = sigma^T P,   P = D^-1 sigma diag(z)
// (linear: M' = M + B). B and G are plain sums over tokens that do not touch M: key_sums.cu, normalizers.cu and sums.cu
// work on all segments of a step at once, and only chain.cu goes through them one by one.
//
// P are shares: what each component of a key contributes to its mass, numbers from 0 to 1 that add up to 1; and M / z
// are weighted sums of values. So nothing leaves the range of float32 where M itself does not, however small or large
// sigma and z are. Where z is 0 M is 0 too, and both are 0.
// Row i of B and G, the sums of sigma(k)_i with something, is kept as a multiple of key_unit(i): neither the rests of
// split numbers below float32's normal range nor an intermediate result above it are lost.
#pragma once

#include "kernels/features.cuh"
#include "launch.h"

namespace infini::cuda {

// A power of two, 2^7 to 2^8 of the segment's sum of sigma(k)_i (less near the top of the range); 0 for a sum of 0.
__device__ __forceinline__ float key_unit(double key_sum) {
  const float sum = float(key_sum);
  const uint32_t exponent = (__float_as_uint(sum) >> 23) + 8;
  return sum > 0.0f ? __uint_as_float((exponent < 253 ? exponent : 253) << 23) : 0.0f;
}
// 1 / x, and 0 for what stays 0.
__device__ __forceinline__ float reciprocal(float x) { return x > 0.0f ? 1.0f / x : 0.0f; }

// The token that fills the segment of a job's border, counted in the tokens of the call.
__device__ __forceinline__ long long last_token(const Job& job, const Shape& shape, int border) {
  return job.first_token + (border + 1ll) * shape.segment_length - job.open - 1;
}

}  // namespace infini::cuda

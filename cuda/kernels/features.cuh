// sigma and the share of a row in the memory: what retrieval, the delta rule and decoding have in common.
//
// Retrieval is sigma(x) M / (sigma(x) . z). Here the division comes first: features = sigma(x) / (sigma(x) . z), then
// features M needs no more than float32's range, whatever the sizes of sigma, M and z. To form it without underflow,
// the row is first scaled by a power of two that brings its largest element that meets a z above 0 near 1; the
// quotient does not change. Where nothing was ever stored the row looks (every sigma_i z_i is 0), features are 0.
#pragma once

#include "kernels/elements.cuh"

namespace infini::cuda {

// sigma(x) = ELU(x) + 1; exactly 0 below -87, where exp leaves float32's normal range.
__device__ __forceinline__ float sigma(float x) { return x > 0.0f ? x + 1.0f : x < -87.0f ? 0.0f : expf(x); }

// The part of an element that counts for the row's scale.
__device__ __forceinline__ float stored(float feature, float normalizer) { return normalizer > 0.0f ? feature : 0.0f; }

// The power of two that brings `largest` into [1, 4); 0 for a row that meets nothing.
__device__ __forceinline__ float row_scale(float largest) {
  const int exponent = int(__float_as_uint(largest) >> 23);
  return largest > 0.0f ? __uint_as_float(uint32_t(exponent < 253 ? 254 - exponent : 1) << 23) : 0.0f;
}

// What turns a scaled element into its share: 1 / mass, mass being the sum of scaled sigma_i z_i.
__device__ __forceinline__ float row_share(float mass) { return mass > 0.0f ? 1.0f / mass : 0.0f; }

// Notes that a call fails at a token of the job.
__device__ __forceinline__ void note_failure(unsigned long long* failure, long long token, int site) {
  atomicMin(failure, (unsigned long long)(token * 8 + site));
}

__device__ __forceinline__ bool is_finite(float x) { return fabsf(x) <= 3.402823466e38f; }

}  // namespace infini::cuda

// What the parts of the decode kernel share: a block's task and its shared memory, and the sums of its warps.
#pragma once

#include "kernels/fragments.cuh"
#include "tiles.h"

namespace infini::cuda::decoding {

constexpr int kThreads = DecodeTile::kThreads, kWarps = kThreads / 32;
constexpr int kColumns = DecodeTile::kColumns;
constexpr float kLowest = -3.402823466e38f;
constexpr float kLog2e = 1.44269504f;

__device__ __forceinline__ int warp_id() { return int(threadIdx.x) / 32; }
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(~0u, x, lanes);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, lanes));
  return x;
}
__device__ __forceinline__ float relative_weight(float top, float highest) {
  return ptx::exp2_approx((top - highest) * kLog2e);
}

// A block's task and its shared memory.
struct Block {
  const Shape& shape;
  const DecodeTile& tile;
  const Job& job;
  int group, kv_head, first_row, rows;
  unsigned char* staged;  // keys and values, or rows of M; then the warps' sums; then the weights of splits
  unsigned char* queries;

  __device__ int token(int row) const { return (first_row + row) / group; }
  __device__ int head(int row) const { return kv_head * group + (first_row + row) % group; }
  __device__ long long tensor_row(int row) const { return (long long)token(row) * shape.heads + head(row); }
  template <class T> __device__ const T* query(int row) const {
    return static_cast<const T*>(job.query) + tensor_row(row) * shape.head_dim;
  }
  // Of this warp: its share of the positions or rows of M, and its first column.
  __device__ int part() const { return warp_id() & (tile.parts - 1); }
  __device__ int column() const { return warp_id() < tile.parts ? 0 : kColumns; }
};

// Sums over the positions, or rows of M, that a warp has seen. Of rows g and g + 8 of the block, as accumulators are.
struct Sums {
  float columns[kColumns / 8][4];
  float top[2], mass[2];
};

}  // namespace infini::cuda::decoding

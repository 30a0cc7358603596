// Matrices in shared memory whose width is known at run time only. They serve Fragments as a Tile does
// (kernels/tile.cuh).
//
// A row is padded to a multiple of 16 elements, and 16 bytes lie unused behind it: eight rows begin in eight different
// groups of banks. Rows are loaded in sixteens. Rows and columns that do not exist are zero.
#pragma once

#include "kernels/elements.cuh"
#include "tiles.h"

namespace infini::cuda {

template <class E> struct Rows {
  static constexpr int kPerChunk = 16 / int(sizeof(E));

  unsigned char* data;
  int columns;

  __device__ unsigned char* row(int i) const { return data + i * row_bytes(columns, sizeof(E)); }
  __device__ uint32_t address(int i, int chunk) const { return ptx::shared_address(row(i) + 16 * chunk); }
  __device__ uint32_t address(int i, int chunk, int lane_row, int lane_chunk) const {
    return address(lane_row, lane_chunk) + uint32_t(row(i) + 16 * chunk - data);
  }
  __device__ E& at(int i, int column) const { return reinterpret_cast<E*>(row(i))[column]; }

  // Starts to copy rows first .. first + count; they lie in global memory from `from` on, every `stride` elements,
  // 16-byte aligned when their length is. There after ptx::cp_async_commit, cp_async_wait and __syncthreads.
  template <int kThreads>
  __device__ __forceinline__ void load(int first, int count, const E* from, int stride) const {
    if (columns % kPerChunk == 0) {
      const int chunks = padded(columns) / kPerChunk, at_once = kThreads / chunks;
      const int begin = int(threadIdx.x) / chunks, column = int(threadIdx.x) % chunks * kPerChunk;
      if (begin >= at_once) return;
      from += begin * stride + column;
#pragma unroll 4
      for (int i = begin; i < count; i += at_once, from += at_once * stride) {
        if (column < columns) {
          ptx::cp_async16(ptx::shared_address(&at(first + i, column)), from, 16);
        } else {
          *reinterpret_cast<int4*>(&at(first + i, column)) = int4{0, 0, 0, 0};
        }
      }
    } else {
      for (int i = int(threadIdx.x) / 32; i < count; i += kThreads / 32) {
        for (int column = int(threadIdx.x) % 32; column < padded(columns); column += 32) {
          at(first + i, column) = column < columns ? from[i * stride + column] : from_float<E>(0.0f);
        }
      }
    }
  }

  // Zeroes rows first .. end.
  template <int kThreads> __device__ __forceinline__ void clear(int first, int end) const {
    const int chunks = padded(columns) / kPerChunk;
    for (int i = int(threadIdx.x); i < (end - first) * chunks; i += kThreads) {
      *reinterpret_cast<int4*>(row(first + i / chunks) + 16 * (i % chunks)) = int4{0, 0, 0, 0};
    }
  }
};

}  // namespace infini::cuda

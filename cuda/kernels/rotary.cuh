// Rotary positions, in shared memory, by all threads of the block together. shape.rotary is the table
// [segment_length][head_dim / 2] of cosines and sines.
//
// The pairs (i, i + head_dim / 2) of a row turn by an angle that grows with the row's position within
// its segment. They are turned in float32, times a factor for queries, and rounded back to the element type in place.
#pragma once

#include <cstring>

#include "kernels/tile.cuh"

namespace infini::cuda {

// Turns one pair and multiplies it by `factor`.
template <class T> __device__ __forceinline__ void rotate_pair(T& a, T& b, float2 turn, float factor) {
  const float x = to_float(a), y = to_float(b);
  a = from_float<T>(factor * (x * turn.x - y * turn.y));
  b = from_float<T>(factor * (y * turn.x + x * turn.y));
}

// Rows 0..rows of the tile; turns: [rows][head_dim / 2], cosine and sine of each.
template <int kThreads, class T, int kColumns>
__device__ __forceinline__ void rotate_rows(const Tile<T, kColumns>& tile, int rows, int head_dim, const float2* turns,
                                            float factor = 1.0f) {
  using Shared = Tile<T, kColumns>;
  constexpr int kPerChunk = Shared::kPerChunk;
  const int half = head_dim / 2;
  if (half % kPerChunk == 0) {
    const int chunks = half / kPerChunk;
#pragma unroll 1
    for (int i = int(threadIdx.x); i < rows * chunks; i += kThreads) {
      const int row = i / chunks, chunk = i % chunks;
      int4& low = *reinterpret_cast<int4*>(tile.data + Shared::offset(row, chunk));
      int4& high = *reinterpret_cast<int4*>(tile.data + Shared::offset(row, chunk + chunks));
      const float2* turn = turns + row * half + chunk * kPerChunk;
      T a[kPerChunk], b[kPerChunk];
      memcpy(a, &low, 16);
      memcpy(b, &high, 16);
#pragma unroll
      for (int j = 0; j < kPerChunk; ++j) rotate_pair(a[j], b[j], turn[j], factor);
      memcpy(&low, a, 16);
      memcpy(&high, b, 16);
    }
  } else {
#pragma unroll 1
    for (int i = int(threadIdx.x); i < rows * half; i += kThreads) {
      const int row = i / half, column = i % half;
      rotate_pair(tile.at(row, column), tile.at(row, column + half), turns[i], factor);
    }
  }
}

template <int kThreads, class T, int kColumns>
__device__ __forceinline__ void scale_rows(const Tile<T, kColumns>& tile, int rows, float factor) {
  constexpr int kPerChunk = Tile<T, kColumns>::kPerChunk;
#pragma unroll 1
  for (int i = int(threadIdx.x); i < rows * Tile<T, kColumns>::kChunks; i += kThreads) {
    int4& chunk = *reinterpret_cast<int4*>(tile.data + i * 16);
    T a[kPerChunk];
    memcpy(a, &chunk, 16);
#pragma unroll
    for (int j = 0; j < kPerChunk; ++j) a[j] = from_float<T>(factor * to_float(a[j]));
    memcpy(&chunk, a, 16);
  }
}

}  // namespace infini::cuda

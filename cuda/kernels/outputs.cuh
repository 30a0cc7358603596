// From accumulators to a tensor: the end of forward and of retrieve.
//
// A warp holds 16 rows of value_dim numbers as mma leaves them. They are rounded to the stream's type once, rows whose
// result is not finite are noted in job.failure, and 16 bytes at a time are written where rows are aligned.
#pragma once

#include "kernels/features.cuh"
#include "kernels/fragments.cuh"

namespace infini::cuda {

// From 0 on: turns NaN when a number is not finite, and stays so.
__device__ __forceinline__ float poisoned(float poison, float x) { return fmaf(x, 0.0f, poison); }

// The strips of one warp, each row times its factor. `stage`: a tile that only this warp uses from row `row` on, for
// 16 kStrips rows. Of these the first `rows` exist; row_of(i) is the place in the tensor of row i of the tile,
// first_token + i its token.
template <int kStrips, class T, int kDim, class RowOf>
__device__ __forceinline__ void write_rows(const float (&acc)[kStrips][kDim / 8][4],
                                           const float (&factor)[kStrips][2], const Tile<T, kDim>& stage,
                                           int row, int rows, int columns, unsigned long long* failure,
                                           long long first_token, RowOf row_of) {
  using Shared = Tile<T, kDim>;
  const int lane = lane_id(), g = lane >> 2, t = lane & 3;
  __syncwarp();  // the rows of the stage have been read
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = row + 16 * strip + 8 * half + g;
      float poison = 0.0f;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        T* to = &stage.at(at, 8 * n + 2 * t);
        const float times = factor[strip][half];
        float2 written = {acc[strip][n][2 * half] * times, acc[strip][n][2 * half + 1] * times};
        if constexpr (sizeof(T) == 2) {
          const uint32_t pair = pack_rounded<T>(written.x, written.y);
          *reinterpret_cast<uint32_t*>(to) = pair;
          written = unpack<T>(pair);
        } else {
          *reinterpret_cast<float2*>(to) = written;
        }
        poison = poisoned(poisoned(poison, written.x), written.y);
      }
      if (16 * strip + 8 * half + g < rows && !(poison == 0.0f)) note_failure(failure, first_token + at, kOutput);
    }
  }
  __syncwarp();
  if (columns % Shared::kPerChunk == 0) {
#pragma unroll 4
    for (int i = lane; i < 16 * kStrips * Shared::kChunks; i += 32) {
      const int at = i / Shared::kChunks, chunk = i % Shared::kChunks;
      if (at < rows && chunk * Shared::kPerChunk < columns) {
        const int4 bytes = *reinterpret_cast<const int4*>(stage.data + Shared::offset(row + at, chunk));
        *reinterpret_cast<int4*>(row_of(row + at) + chunk * Shared::kPerChunk) = bytes;
      }
    }
  } else {
#pragma unroll 1
    for (int i = lane; i < 16 * kStrips * kDim; i += 32) {
      const int at = i / kDim, column = i % kDim;
      if (at < rows && column < columns) row_of(row + at)[column] = stage.at(row + at, column);
    }
  }
}

}  // namespace infini::cuda

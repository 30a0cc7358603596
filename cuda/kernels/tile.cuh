// Matrices in shared memory.
//
// A Tile has rows of kColumns elements (at least 128 bytes). Its 16-byte chunks are permuted within each row by an
// exclusive or with the row's number: ldmatrix reads the same chunk of eight consecutive rows at once, and so meets
// eight different groups of banks. Rows and columns that do not exist are zero.
#pragma once

#include "kernels/elements.cuh"

namespace infini::cuda {

template <class T, int kColumns> struct Tile {
  static constexpr int kRowBytes = kColumns * int(sizeof(T));
  static constexpr int kPerChunk = 16 / int(sizeof(T));
  static constexpr int kChunks = kRowBytes / 16;
  static_assert(kRowBytes % 128 == 0);
  __host__ __device__ static constexpr int bytes(int rows) { return rows * kRowBytes; }

  unsigned char* data;

  __device__ static int offset(int row, int chunk) { return row * kRowBytes + ((chunk ^ (row & 7)) << 4); }
  __device__ uint32_t address(int row, int chunk) const {
    return ptx::shared_address(data) + uint32_t(offset(row, chunk));
  }
  // The same of (row + lane_row, chunk + lane_chunk), by one exclusive or where row and chunk are constants: row is a
  // multiple of 8, chunk has no bit in common with lane_chunk, data is 128-byte aligned.
  __device__ uint32_t address(int row, int chunk, int lane_row, int lane_chunk) const {
    return (address(lane_row, lane_chunk) ^ uint32_t((chunk & 7) << 4)) + uint32_t(row * kRowBytes + (chunk >> 3 << 7));
  }
  __device__ T& at(int row, int column) const {
    return reinterpret_cast<T*>(data + offset(row, column / kPerChunk))[column % kPerChunk];
  }
};

// Starts copying `rows` rows of `columns` elements: row_of(row) is the row's place in global memory where exists(row).
// What does not exist is written as zeros. Complete after ptx::cp_async_commit, cp_async_wait and __syncthreads. Rows
// are 16-byte aligned when their length is.
template <int kThreads, class T, int kColumns, class Exists, class RowOf>
__device__ __forceinline__ void load_rows(const Tile<T, kColumns>& tile, int rows, int columns, Exists exists,
                                          RowOf row_of) {
  using Shared = Tile<T, kColumns>;
  static_assert(kThreads % Shared::kChunks == 0 && kThreads / Shared::kChunks > 0);
  constexpr int kRowsAtOnce = kThreads / Shared::kChunks;
  if (columns % Shared::kPerChunk == 0) {
    // A thread copies one column of chunks: few instructions for each.
    const int first = int(threadIdx.x / Shared::kChunks), chunk = int(threadIdx.x % Shared::kChunks);
    const bool inside = chunk * Shared::kPerChunk < columns;
#pragma unroll
    for (int i = 0; i < (rows + kRowsAtOnce - 1) / kRowsAtOnce; ++i) {
      const int ahead = i * kRowsAtOnce, row = first + ahead;
      if (rows % kRowsAtOnce != 0 && row >= rows) break;
      const uint32_t to = kRowsAtOnce % 8 == 0 ? tile.address(ahead, 0, first, chunk) : tile.address(row, chunk);
      ptx::cp_async16(to, row_of(row) + chunk * Shared::kPerChunk, inside && exists(row) ? 16 : 0);
    }
  } else {
#pragma unroll 1
    for (int i = int(threadIdx.x); i < rows * kColumns; i += kThreads) {
      const int row = i / kColumns, column = i % kColumns;
      tile.at(row, column) = column < columns && exists(row) ? row_of(row)[column] : from_float<T>(0.0f);
    }
  }
}

// The same where row_of is null for a row that does not exist.
template <int kThreads, class T, int kColumns, class RowOf>
__device__ __forceinline__ void load_rows(const Tile<T, kColumns>& tile, int rows, int columns, RowOf row_of) {
  load_rows<kThreads>(tile, rows, columns, [&](int row) { return row_of(row) != nullptr; }, row_of);
}

}  // namespace infini::cuda

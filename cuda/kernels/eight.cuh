// How a thread turns a row of a tile into operands of the tensor cores: eight numbers at a time, as float32 in between.
//
// From elements of the stream's type it makes elements of the operand's: rounded to one bfloat16, or kept exactly, as
// float32 or as a pair of bfloat16, high + low, in a tile each.
#pragma once

#include <type_traits>

#include "kernels/tile.cuh"

namespace infini::cuda {

// What a thread converts of a row: eight numbers, one chunk of 16-bit elements or two of float32. The two are half a
// row apart, so that neighbours in a warp meet different banks.
template <class T> struct Eight {
  static constexpr int kPerChunk = 16 / int(sizeof(T)), kChunks = 8 / kPerChunk;
  float x[kChunks][kPerChunk];

  template <int kColumns> __device__ void load(const Tile<T, kColumns>& tile, int row, int lane) {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int4 chunk = *reinterpret_cast<const int4*>(tile.data + tile.offset(row, lane + c * (kColumns / 8)));
      const int words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
      for (int i = 0; i < kPerChunk; ++i) x[c][i] = element(uint32_t(words[i * int(sizeof(T)) / 4]), i);
    }
  }
  // The same columns of a row of float32.
  __device__ void load(const float4* row, int lane, int lanes) {
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
      const float4 four = row[(lane + i / kPerChunk * lanes) * (kPerChunk / 4) + i % kPerChunk / 4];
      float* const to = &x[i / kPerChunk][i % kPerChunk];
      to[0] = four.x;
      to[1] = four.y;
      to[2] = four.z;
      to[3] = four.w;
    }
  }
  // Which column each number is.
  template <int kColumns> __device__ static int column(int lane, int c, int i) {
    return (lane + c * (kColumns / 8)) * kPerChunk + i;
  }

 private:
  __device__ static float element(uint32_t word, int i) {
    const uint16_t half = uint16_t(word >> (i % 2 * 16));
    if constexpr (std::is_same_v<T, float>) {
      return __uint_as_float(word);
    } else if constexpr (std::is_same_v<T, bfloat16>) {
      return to_float(__ushort_as_bfloat16(half));
    } else {
      return to_float(__ushort_as_half(half));
    }
  }
};

template <int kColumns>
__device__ __forceinline__ void store(const Tile<float, kColumns>& tile, int row, int chunk, const float (&x)[4]) {
  *reinterpret_cast<float4*>(tile.data + tile.offset(row, chunk)) = {x[0], x[1], x[2], x[3]};
}
// To the nearest bfloat16.
template <int kColumns>
__device__ __forceinline__ void store(const Tile<bfloat16, kColumns>& tile, int row, int chunk, const float (&x)[8]) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) words[i] = pack_rounded<bfloat16>(x[2 * i], x[2 * i + 1]);
  *reinterpret_cast<uint4*>(tile.data + tile.offset(row, chunk)) = {words[0], words[1], words[2], words[3]};
}
// As float32 or as a pair of bfloat16.
template <int kColumns>
__device__ __forceinline__ void store_exactly(const Tile<float, kColumns>& tile, const Tile<float, kColumns>&, int row,
                                              int chunk, const float (&x)[4]) {
  store(tile, row, chunk, x);
}
template <int kColumns>
__device__ __forceinline__ void store_exactly(const Tile<bfloat16, kColumns>& high, const Tile<bfloat16, kColumns>& low,
                                              int row, int chunk, const float (&x)[8]) {
  uint32_t highs[4], lows[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const Bfloat16Pair a = split(x[2 * i]), b = split(x[2 * i + 1]);
    highs[i] = pack(a.high, b.high);
    lows[i] = pack(a.low, b.low);
  }
  *reinterpret_cast<uint4*>(high.data + high.offset(row, chunk)) = {highs[0], highs[1], highs[2], highs[3]};
  *reinterpret_cast<uint4*>(low.data + low.offset(row, chunk)) = {lows[0], lows[1], lows[2], lows[3]};
}

}  // namespace infini::cuda

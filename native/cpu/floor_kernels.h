// What the machine can do at most, for the benchmark: multiply-adds in registers, products on tiles, reading memory, and a
// triad, which writes as well.
#pragma once

#include "cpu/simd.h"
#include "cpu/tile_registers.h"

namespace infini::cpu::INFINI_SIMD_LEVEL {

// Chains side by side: enough to hide the latency of two units, few enough to stay in registers.
constexpr int kChains = INFINI_VECTOR_BYTES == 64 ? 20 : 12;

// Returns the floating-point operations done.
inline double multiply_adds(int64_t rounds, float* sink) {
  Floats chain[kChains];
#pragma GCC unroll 32
  for (int i = 0; i < kChains; ++i) chain[i] = broadcast(float(i));
  const Floats factor = broadcast(0.999f), term = broadcast(0.001f);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) chain[i] = chain[i] * factor + term;
  }
  Floats sum{};
#pragma GCC unroll 32
  for (int i = 0; i < kChains; ++i) sum += chain[i];
  *sink = sum[0];
  return 2.0 * double(rounds) * kChains * kLanes<float>;
}

// count: a multiple of 128.
inline void read_through(const float* data, int64_t count, float* sink) {
  constexpr int chains = 8;
  Floats chain[chains];
#pragma GCC unroll 32
  for (int i = 0; i < chains; ++i) chain[i] = Floats{};
  for (int64_t at = 0; at < count; at += chains * kLanes<float>) {
#pragma GCC unroll 32
    for (int i = 0; i < chains; ++i) chain[i] += load<float>(data + at + i * kLanes<float>);
  }
  Floats sum{};
#pragma GCC unroll 32
  for (int i = 0; i < chains; ++i) sum += chain[i];
  *sink = sum[0];
}

// to = a + 3 b; count: a multiple of 16.
inline void triad(const float* a, const float* b, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += kLanes<float>) store(to + i, load<float>(a + i) + load<float>(b + i) * 3.0f);
}

// Returns the operations done by the four products that share the tiles of a step (tiles.h); 0 without tiles.
inline double multiply_tiles([[maybe_unused]] int64_t rounds, [[maybe_unused]] float* sink) {
#if defined(INFINI_TILES)
  const TileScope scope(true);
  alignas(64) float row[16 * 16] = {};
  INFINI_TILE_LOAD(4, row, 64);
  INFINI_TILE_LOAD(5, row, 64);
  INFINI_TILE_LOAD(6, row, 64);
  INFINI_TILE_LOAD(7, row, 64);
  INFINI_TILE_ZERO(0);
  INFINI_TILE_ZERO(1);
  INFINI_TILE_ZERO(2);
  INFINI_TILE_ZERO(3);
  for (int64_t round = 0; round < rounds; ++round) {
    INFINI_TILE_MULTIPLY(0, 4, 6);
    INFINI_TILE_MULTIPLY(1, 4, 7);
    INFINI_TILE_MULTIPLY(2, 5, 6);
    INFINI_TILE_MULTIPLY(3, 5, 7);
  }
  INFINI_TILE_STORE(0, row, 64);
  *sink = row[0];
  return double(rounds) * 4 * 2 * 16 * 16 * 32;
#else
  return 0;
#endif
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

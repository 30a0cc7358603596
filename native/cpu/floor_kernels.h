// What the machine can do at most, for the benchmark: multiply-adds in registers, and reading memory.
#pragma once

#include "cpu/simd.h"

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

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

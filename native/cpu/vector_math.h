// exp and the feature map sigma(x) = ELU(x) + 1, as vectors.
#pragma once

#include "cpu/simd.h"

namespace infini::cpu::INFINI_SIMD_LEVEL {

// exp(x) / 64 for x <= 0, to 1 ulp; 0 below -80. The power of two is free, and keeps the sum of a block of 64
// values, each weighted by at most 1, from overflowing when the values are as large as float32 holds.
inline Floats exp_over_block(Floats x) {
  static_assert(kBlock == 64);
  const Floats floor = broadcast(-80.0f);
  const Floats clamped = maximum(x, floor);
  const Floats shifted = clamped * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the integer part lands in the low bits
  const Floats n = shifted - 12582912.0f;
  const Floats r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Ints power = ((Ints)shifted + (127 - 6)) << 23;
  return x < floor ? Floats{} : p * (Floats)power;
}

// exp(x) for -87 <= x <= 0, to about 1e-16 relative.
inline Doubles exp_double(Doubles x) {
  const double shift = 6755399441055744.0;  // 1.5 * 2^52
  const Doubles shifted = x * 1.4426950408889634 + shift;
  const Doubles n = shifted - shift;
  const Doubles r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
  Doubles p = broadcast(1.0 / 6227020800.0);
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const Longs power = ((Longs)shifted + 1023) << 52;
  return p * (Doubles)power;
}

// x > 0 ? x + 1 : exp(x), never ELU(x) + 1, whose rounding would erase everything below -17; exactly 0 below -87.
inline Doubles sigma(Doubles x) {
  const Doubles zero{}, floor = broadcast(-87.0);
  const Doubles negative = minimum(x, zero);
  const Doubles decayed = x < floor ? zero : exp_double(maximum(negative, floor));
  return x > zero ? x + 1.0 : decayed;
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

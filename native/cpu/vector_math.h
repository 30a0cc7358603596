// exp and the feature map sigma(x) = ELU(x) + 1, as vectors, which never cross a call boundary.
#pragma once

#include "cpu/simd.h"

namespace infini::cpu::INFINI_SIMD_LEVEL {

// 2^(x + power), to 1 ulp, where that is a normal number.
[[gnu::always_inline]] inline Floats power_of_two(Floats x, int power) {
  const float shift = 12582912.0f + float(power);  // 1.5 * 2^23: the integer part lands in the low bits
  const Floats shifted = x + shift;
  const Floats r = x - (shifted - shift);
  Floats p = broadcast(1.535336188319500e-4f);
  p = p * r + 1.339887440266574e-3f;
  p = p * r + 9.618437357674640e-3f;
  p = p * r + 5.550332471162809e-2f;
  p = p * r + 2.402264791363012e-1f;
  p = p * r + 6.931472028550421e-1f;
  p = p * r + 1.0f;
  return (Floats)((Ints)p + ((Ints)shifted << 23));
}

// exp(x) for x <= 0, to 1 ulp; never below exp(-87), the smallest normal number.
[[gnu::always_inline]] inline Floats exp_float(Floats x) {
  const Floats clamped = maximum(x, broadcast(-87.0f));
  const Floats shifted = clamped * 1.44269504f + 12582912.0f;
  const Floats n = shifted - 12582912.0f;
  const Floats r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return (Floats)((Ints)p + ((Ints)shifted << 23));
}

// exp(x) for -87 <= x <= 0, to about 1e-16 relative.
[[gnu::always_inline]] inline Doubles exp_double(Doubles x) {
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
[[gnu::always_inline]] inline Doubles sigma(Doubles x) {
  const Doubles zero{}, floor = broadcast(-87.0);
  const Doubles negative = minimum(x, zero);
  const Doubles decayed = x < floor ? zero : exp_double(maximum(negative, floor));
  return x > zero ? x + 1.0 : decayed;
}
// In float32 not 0 but e^-87 below -87: rows that notice are float64's (retrieval.h).
[[gnu::always_inline]] inline Floats sigma(Floats x) {
  const Floats zero{};
  return x > zero ? x + 1.0f : exp_float(minimum(x, zero));
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

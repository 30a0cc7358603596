// Elements as they travel (float32, bfloat16, float16) to and from arithmetic types.
#pragma once

#include "cpu/simd.h"

namespace infini::cpu::INFINI_SIMD_LEVEL {

template <class To, class From> inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

inline float from_bfloat16(uint16_t bits) { return bits_as<float>(uint32_t(bits) << 16); }

// Multiplying by 2^112 rebiases the exponent and makes subnormals right as well. Finite inputs only.
inline float from_float16(uint16_t bits) {
  const float magnitude = bits_as<float>(uint32_t(bits & 0x7fff) << 13) * 0x1p112f;
  return bits_as<float>(bits_as<uint32_t>(magnitude) | uint32_t(bits & 0x8000) << 16);
}

inline uint16_t to_bfloat16(float value) {
  const uint32_t bits = bits_as<uint32_t>(value);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Round to nearest even; beyond 65504 + half an ulp becomes infinity, which the caller reports.
inline uint16_t to_float16(float value) {
  const uint32_t bits = bits_as<uint32_t>(value);
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
  uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x47800000) return sign | 0x7c00;  // 65536 and above
  if (magnitude < 0x38800000) {                       // below 2^-14: subnormal, rounded by the adder
    const float rounded = bits_as<float>(magnitude) + 0.5f;
    return sign | uint16_t(bits_as<uint32_t>(rounded) - 0x3f000000);
  }
  magnitude += 0xfff + (magnitude >> 13 & 1);
  return sign | uint16_t((magnitude - 0x38000000) >> 13);
}

// 16-bit elements where they lie: load() makes float32 lanes of them.
struct BFloat16 { uint16_t bits; };
struct Float16 { uint16_t bits; };

template <class T> inline Floats load(const BFloat16* from) requires(sizeof(T) == 4) {
#if defined(INFINI_AVX512)
  return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16);
#elif defined(INFINI_AVX2)
  return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from)), 16);
#else
  float lanes[kLanes<float>];
  for (int lane = 0; lane < kLanes<float>; ++lane) lanes[lane] = from_bfloat16(from[lane].bits);
  return load<float>(lanes);
#endif
}

template <class T> inline Floats load(const Float16* from) requires(sizeof(T) == 4) {
#if defined(INFINI_AVX512)
  return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
#elif defined(INFINI_AVX2)
  return (Floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from));
#else
  float lanes[kLanes<float>];
  for (int lane = 0; lane < kLanes<float>; ++lane) lanes[lane] = from_float16(from[lane].bits);
  return load<float>(lanes);
#endif
}

template <Element> struct Stored;
template <> struct Stored<Element::F32> {
  using type = float;
  static float decode(float value) { return value; }
};
template <> struct Stored<Element::BF16> {
  using type = BFloat16;
  static float decode(BFloat16 value) { return from_bfloat16(value.bits); }
};
template <> struct Stored<Element::F16> {
  using type = Float16;
  static float decode(Float16 value) { return from_float16(value.bits); }
};

// Run-time element type to template argument: the only place where that happens.
template <class Body> inline auto with_element(Element element, Body body) {
  switch (element) {
    case Element::BF16: return body(Stored<Element::BF16>{});
    case Element::F16: return body(Stored<Element::F16>{});
    default: return body(Stored<Element::F32>{});
  }
}

template <class T> inline void decode(Element element, const void* data, int64_t offset, int64_t count, T* to) {
  with_element(element, [&](auto stored) {
    const auto* from = static_cast<const typename decltype(stored)::type*>(data) + offset;
    for (int64_t i = 0; i < count; ++i) to[i] = T(decltype(stored)::decode(from[i]));
  });
}

// Writes a row of results; false when one does not fit the type. "+ 0.0" turns -0 into 0: whether a masked key
// was absent or weighted by zero must not show. Without a branch, so that the compiler makes vectors of it.
template <class T> inline bool encode(Element element, const T* row, int64_t count, void* data, int64_t offset) {
  uint32_t overflow = 0;
  if (element == Element::F32) {
    float* to = static_cast<float*>(data) + offset;
    for (int64_t i = 0; i < count; ++i) {
      to[i] = float(row[i] + T(0));
      overflow |= (bits_as<uint32_t>(to[i]) & 0x7f800000) == 0x7f800000;
    }
  } else {
    uint16_t* to = static_cast<uint16_t*>(data) + offset;
    const uint16_t exponent = element == Element::BF16 ? 0x7f80 : 0x7c00;
    for (int64_t i = 0; i < count; ++i) {
      const float value = float(row[i] + T(0));
      to[i] = element == Element::BF16 ? to_bfloat16(value) : to_float16(value);
      overflow |= (to[i] & exponent) == exponent;
    }
  }
  return overflow == 0;
}

inline int64_t find_non_finite(Element element, const void* data, int64_t count) {
  const uint32_t exponent = element == Element::F32 ? 0x7f800000 : element == Element::BF16 ? 0x7f80 : 0x7c00;
  auto scan = [&](const auto* from) -> int64_t {
    for (int64_t begin = 0; begin < count; begin += 4096) {
      const int64_t end = begin + 4096 < count ? begin + 4096 : count;
      uint32_t found = 0;  // the whole chunk without a branch, then the place
      for (int64_t i = begin; i < end; ++i) found |= (from[i] & exponent) == exponent;
      for (int64_t i = begin; found && i < end; ++i) {
        if ((from[i] & exponent) == exponent) return i;
      }
    }
    return -1;
  };
  if (element == Element::F32) return scan(static_cast<const uint32_t*>(data));
  return scan(static_cast<const uint16_t*>(data));
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

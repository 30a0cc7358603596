// Vectors as wide as this SIMD level has them, in the compiler's portable vector extension.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own AVX-512 header trips over it
#pragma GCC diagnostic ignored "-Wpsabi"                // vectors never cross a call boundary here
#endif

#include "cpu/kernels.h"

// A build may set the width itself: its vectors are then made of narrower ones, without intrinsics. So the tests run
// the kernels for AVX-512 on processors that lack it.
#if defined(INFINI_VECTOR_BYTES)
#elif defined(__AVX512F__)
#define INFINI_AVX512 1
#define INFINI_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define INFINI_AVX2 1
#define INFINI_VECTOR_BYTES 32
#else
#define INFINI_VECTOR_BYTES 16
#if defined(__x86_64__)
#define INFINI_SSE 1
#endif
#endif

namespace infini::cpu::INFINI_SIMD_LEVEL {

typedef float Floats __attribute__((vector_size(INFINI_VECTOR_BYTES)));
typedef double Doubles __attribute__((vector_size(INFINI_VECTOR_BYTES)));
typedef int32_t Ints __attribute__((vector_size(INFINI_VECTOR_BYTES)));
typedef int64_t Longs __attribute__((vector_size(INFINI_VECTOR_BYTES)));
typedef float HalfFloats __attribute__((vector_size(INFINI_VECTOR_BYTES / 2)));  // as many as there are Doubles

template <class T> struct VectorOf;
template <> struct VectorOf<float> { using type = Floats; };
template <> struct VectorOf<double> { using type = Doubles; };
template <class T> using Vector = typename VectorOf<T>::type;
template <class T> constexpr int kLanes = INFINI_VECTOR_BYTES / int(sizeof(T));

template <class V, class T> inline V load_as(const T* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
template <class V, class T> inline void store(T* to, V value) { __builtin_memcpy(to, &value, sizeof value); }
template <class T> inline Vector<T> broadcast(T value) { return value - Vector<T>{}; }

// Between float32 and float64 lanes. GCC 12 takes __builtin_convertvector through the stack, hence the intrinsics.
inline Doubles widen(const float* from) {
#if defined(INFINI_AVX512)
  return (Doubles)_mm512_cvtps_pd(_mm256_loadu_ps(from));
#elif defined(INFINI_AVX2)
  return (Doubles)_mm256_cvtps_pd(_mm_loadu_ps(from));
#elif defined(INFINI_SSE)
  return (Doubles)_mm_cvtps_pd(_mm_castsi128_ps(_mm_loadu_si64(from)));
#else
  return __builtin_convertvector(load_as<HalfFloats>(from), Doubles);
#endif
}

// Loads lanes of T, converting from what lies in memory.
template <class T> inline Vector<T> load(const T* from) { return load_as<Vector<T>>(from); }
template <class T> inline Doubles load(const float* from) requires(sizeof(T) == 8) { return widen(from); }

// Two vectors of float64 lanes as one of float32 lanes.
inline Floats narrow(Doubles low, Doubles high) {
#if defined(INFINI_AVX512)
  return (Floats)_mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps((__m512d)low)),
                                    _mm512_cvtpd_ps((__m512d)high), 1);
#elif defined(INFINI_AVX2)
  return (Floats)_mm256_set_m128(_mm256_cvtpd_ps((__m256d)high), _mm256_cvtpd_ps((__m256d)low));
#elif defined(INFINI_SSE)
  return (Floats)_mm_movelh_ps(_mm_cvtpd_ps((__m128d)low), _mm_cvtpd_ps((__m128d)high));
#else
  float lanes[kLanes<float>];
  store(lanes, __builtin_convertvector(low, HalfFloats));
  store(lanes + kLanes<double>, __builtin_convertvector(high, HalfFloats));
  return load_as<Floats>(lanes);
#endif
}

// a > b ? a : b and a < b ? a : b, which compilers do not make one instruction of.
#if defined(INFINI_AVX512)
inline Doubles maximum(Doubles a, Doubles b) { return (Doubles)_mm512_max_pd((__m512d)a, (__m512d)b); }
inline Doubles minimum(Doubles a, Doubles b) { return (Doubles)_mm512_min_pd((__m512d)a, (__m512d)b); }
inline Floats maximum(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
inline Floats minimum(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(INFINI_AVX2)
inline Doubles maximum(Doubles a, Doubles b) { return (Doubles)_mm256_max_pd((__m256d)a, (__m256d)b); }
inline Doubles minimum(Doubles a, Doubles b) { return (Doubles)_mm256_min_pd((__m256d)a, (__m256d)b); }
inline Floats maximum(Floats a, Floats b) { return (Floats)_mm256_max_ps((__m256)a, (__m256)b); }
inline Floats minimum(Floats a, Floats b) { return (Floats)_mm256_min_ps((__m256)a, (__m256)b); }
#elif defined(INFINI_SSE)
inline Doubles maximum(Doubles a, Doubles b) { return (Doubles)_mm_max_pd((__m128d)a, (__m128d)b); }
inline Doubles minimum(Doubles a, Doubles b) { return (Doubles)_mm_min_pd((__m128d)a, (__m128d)b); }
inline Floats maximum(Floats a, Floats b) { return (Floats)_mm_max_ps((__m128)a, (__m128)b); }
inline Floats minimum(Floats a, Floats b) { return (Floats)_mm_min_ps((__m128)a, (__m128)b); }
#else
template <class V> inline V maximum(V a, V b) { return a > b ? a : b; }
template <class V> inline V minimum(V a, V b) { return a < b ? a : b; }
#endif

// 0, 1, 2, ...
inline Ints lane_numbers() {
  Ints numbers;
  for (int lane = 0; lane < kLanes<float>; ++lane) numbers[lane] = lane;
  return numbers;
}

// Horizontal reductions, always pairwise in the same order.
template <class V, class Combine> inline auto reduce(V value, Combine combine) {
  constexpr int lanes = int(sizeof(V) / sizeof(value[0]));
  decltype(value[0] + 0) part[lanes];
  __builtin_memcpy(part, &value, sizeof value);
  for (int width = lanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) part[lane] = combine(part[lane], part[lane + width]);
  }
  return part[0];
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

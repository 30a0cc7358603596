// CUDA's built-in functions under their own names, for the types that CUDA has them for.
#pragma once

#include <math.h>

#include "emulation/device.h"

#define INFINI_WHERE const infini::emulation::Location& where = infini::emulation::Location::current()

// ---- barriers and warps

inline void __syncthreads(INFINI_WHERE) { infini::emulation::barrier(infini::emulation::Reduction::None, 0, where); }
inline int __syncthreads_count(int predicate, INFINI_WHERE) {
  return infini::emulation::barrier(infini::emulation::Reduction::Count, predicate, where);
}
inline int __syncthreads_and(int predicate, INFINI_WHERE) {
  return infini::emulation::barrier(infini::emulation::Reduction::And, predicate, where);
}
inline int __syncthreads_or(int predicate, INFINI_WHERE) {
  return infini::emulation::barrier(infini::emulation::Reduction::Or, predicate, where);
}
inline void __syncwarp(unsigned mask = ~0u, INFINI_WHERE) { infini::emulation::warp_barrier(mask, where); }

template <class T> T __shfl_sync(unsigned mask, T value, int lane, int width = 32, INFINI_WHERE) {
  return infini::emulation::shuffle_value(infini::emulation::Shuffle::Index, mask, value, lane, width, where);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, INFINI_WHERE) {
  return infini::emulation::shuffle_value(infini::emulation::Shuffle::Up, mask, value, int(delta), width, where);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, INFINI_WHERE) {
  return infini::emulation::shuffle_value(infini::emulation::Shuffle::Down, mask, value, int(delta), width, where);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, INFINI_WHERE) {
  return infini::emulation::shuffle_value(infini::emulation::Shuffle::Xor, mask, value, lanes, width, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, INFINI_WHERE) {
  return infini::emulation::ballot("__ballot_sync", mask, predicate != 0, where);
}
inline int __any_sync(unsigned mask, int predicate, INFINI_WHERE) {
  return infini::emulation::ballot("__any_sync", mask, predicate != 0, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, INFINI_WHERE) {
  return infini::emulation::ballot("__all_sync", mask, predicate == 0, where) == 0;
}

// ---- memory

inline void __threadfence() { infini::emulation::fence(); }
[[noreturn]] inline void __trap(INFINI_WHERE) { infini::emulation::fail("__trap", where); }

template <class T> T __ldg(const T* address, INFINI_WHERE) {
  infini::emulation::note_read(address, sizeof(T), where);
  T value;
  std::memcpy(&value, address, sizeof value);
  return value;
}

#define INFINI_ATOMIC(name, operation, ...)                                                                            \
  template <infini::emulation::OneOf<__VA_ARGS__> T> T name(T* address, std::type_identity_t<T> value, INFINI_WHERE) { \
    return infini::emulation::atomic(infini::emulation::Atomic::operation, address, value, T(), where);                \
  }
INFINI_ATOMIC(atomicAdd, Add, int, unsigned, unsigned long long, float, double)
INFINI_ATOMIC(atomicMin, Min, int, unsigned, long long, unsigned long long)
INFINI_ATOMIC(atomicMax, Max, int, unsigned, long long, unsigned long long)
INFINI_ATOMIC(atomicExch, Exchange, int, unsigned, unsigned long long, float)
#undef INFINI_ATOMIC
template <infini::emulation::OneOf<int, unsigned, unsigned long long> T>
T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value, INFINI_WHERE) {
  return infini::emulation::atomic(infini::emulation::Atomic::CompareExchange, address, value, compare, where);
}

// ---- arithmetic

inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }

using std::isfinite;
using std::isinf;
using std::isnan;

template <class A, class B> constexpr auto min(A a, B b) -> std::common_type_t<A, B> {
  using T = std::common_type_t<A, B>;
  return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B> constexpr auto max(A a, B b) -> std::common_type_t<A, B> {
  using T = std::common_type_t<A, B>;
  return T(a) < T(b) ? T(b) : T(a);
}

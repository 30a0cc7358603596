// Chooses the SIMD level once, when the library is first used.
#include <cstdlib>
#include <cstring>

#include "cpu/kernels.h"

namespace infini::cpu {
namespace {

#if defined(INFINI_HAVE_AVX2)
bool has_avx2() {  // x86-64-v3, which the compiler was told to assume
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("f16c");
}
#endif
#if defined(INFINI_HAVE_AVX512)
bool has_avx512() {  // x86-64-v4
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
#endif

const Kernels& choose() {
  const Kernels* levels[3];  // those that this processor can run, the best first
  int count = 0;
#if defined(INFINI_HAVE_AVX512)
  if (has_avx512()) levels[count++] = &avx512::kernels;
#endif
#if defined(INFINI_HAVE_AVX2)
  if (has_avx2()) levels[count++] = &avx2::kernels;
#endif
  levels[count++] = &portable::kernels;

  const char* wish = std::getenv("INFINI_CPU");
#if defined(INFINI_HAVE_WIDE)
  if (wish && std::strcmp(wish, "wide") == 0 && has_avx2()) return wide::kernels;
#endif
  for (int i = 0; wish && i < count; ++i) {
    if (std::strcmp(wish, levels[i]->name) == 0) return *levels[i];
  }
  return *levels[0];
}

}  // namespace

const Kernels& select_kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

// The most that any kernel takes; each array is rounded up to 64 bytes.
size_t workspace_bytes(int head_dim, int value_dim) {
  const size_t key = padded(head_dim), value = padded(value_dim);
  const size_t rows = kTileRows;
  const size_t tile = rows * (2 * key * 8 + kBlock * 12 + value * (8 + 8 + 4) + 5 * 8);
  const size_t blocks = kBlock * (key * 12 + value * 4 + 4) + key * value * 4 + key * 8;
  const size_t state = kStateRows * (kTokens * 8 + value * 16 + 8 * 8);
  return tile + blocks + state + 4096;
}

}  // namespace infini::cpu

// Chooses the SIMD level once, when the library is first used.
#include <cstdlib>
#include <cstring>
#include <string>

#if defined(INFINI_HAVE_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "core/error.h"
#include "cpu/kernels.h"

namespace infini::cpu {
namespace {

#if defined(INFINI_HAVE_AVX2)
bool has_avx2() {  // x86-64-v3, which the compiler was told to assume
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("f16c");
}
#endif
#if defined(INFINI_HAVE_AMX)
// The processor's tiles of bfloat16, which a process on Linux must ask for: saving them makes its signal frames larger.
bool may_use_amx() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr uint32_t kBFloat16 = 1u << 22, kTiles = 1u << 24;
  if ((d & kBFloat16) == 0 || (d & kTiles) == 0) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif
#if defined(INFINI_HAVE_AVX512)
bool has_avx512() {  // x86-64-v4
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
#endif

constexpr const char* kLevels[] = {"amx", "avx512", "avx2", "portable"};

const Kernels& choose() {
  const char* wish = std::getenv("INFINI_CPU");
  if (wish && !*wish) wish = nullptr;
#if defined(INFINI_HAVE_WIDE)
  if (wish && std::strcmp(wish, "wide") == 0 && has_avx2()) return wide::kernels;
  if (wish && std::strcmp(wish, "tiles") == 0 && has_avx2()) return tiles::kernels;
#endif
  int most = 0;  // the best level that may be chosen
  while (wish && most < 4 && std::strcmp(wish, kLevels[most]) != 0) ++most;
  if (most == 4) {
    throw Error(ErrorCode::NoDevice,
                "Expected amx, avx512, avx2 or portable for INFINI_CPU, the most that the CPU may use, but received " + quoted(wish));
  }
#if defined(INFINI_HAVE_AMX)
  if (most <= 0 && has_avx512() && may_use_amx()) return amx::kernels;
#endif
#if defined(INFINI_HAVE_AVX512)
  if (most <= 1 && has_avx512()) return avx512::kernels;
#endif
#if defined(INFINI_HAVE_AVX2)
  if (most <= 2 && has_avx2()) return avx2::kernels;
#endif
  return portable::kernels;
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
  const size_t deepest = key > kBlock ? key : kBlock, widest = value > kBlock ? value : kBlock;
  // Of A twice, a tile's queries and what else, 128 rows; of B once; in 32s (tiles.h).
  const size_t packing = 2 * 128 * (deepest + 16) * 2 + (deepest + 16) * (widest + 16) * 4;
  const size_t tile = rows * (2 * key * 8 + kBlock * 12 + value * (8 + 8 + 4) + 5 * 8 + 64 + 5);
  const size_t blocks = kBlock * (key * 12 + value * 4 + 4) + key * value * 4 + key * 8;
  const size_t state = kStateRows * (kTokens * 8 + value * 16 + 8 * 8);
  return tile + blocks + state + packing + 4096;
}

}  // namespace infini::cpu

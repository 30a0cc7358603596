// The tile registers of AMX: eight of 16 rows by 64 bytes, and the one product of bfloat16 pairs. INFINI_TILES says what
// they are made of: 1, the processor's; 2, a model in software, so that the code above runs in tests anywhere.
#pragma once

#include "cpu/simd.h"

namespace infini::cpu::INFINI_SIMD_LEVEL {

#if !defined(INFINI_TILES)

constexpr bool kTiles = false;
struct TileScope {
  explicit TileScope(bool) {}
};

#else

constexpr bool kTiles = true;

#if INFINI_TILES == 1

// All eight tiles whole.
struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
alignas(64) inline constexpr TileConfig kWholeTiles;  // a constant: GCC 12 believes that only its first bytes are read
static_assert(sizeof(TileConfig) == 64);

// While tiles hold something every switch of threads saves 8 KB more: released at the end.
struct TileScope {
  explicit TileScope(bool wanted) : wanted(wanted) {
    if (wanted) _tile_loadconfig(&kWholeTiles);
  }
  ~TileScope() {
    if (wanted) _tile_release();
  }
  TileScope(const TileScope&) = delete;
  const bool wanted;
};

// GCC 12 does not know that loading a tile reads memory: what was stored before must be there.
inline void finish_stores() { __asm__ volatile("" ::: "memory"); }

// Macros, because a tile's number is part of the instruction. The stride of rows is in bytes.
#define INFINI_TILE_ZERO(tile) _tile_zero(tile)
#define INFINI_TILE_LOAD(tile, from, stride) _tile_loadd(tile, from, stride)
#define INFINI_TILE_STORE(tile, to, stride) _tile_stored(tile, to, stride)
#define INFINI_TILE_MULTIPLY(sum, left, right) _tile_dpbf16ps(sum, left, right)

#else

struct TileModel {
  float tiles[8][16][16];
  bool configured = false;

  void expect_configured() const {
    if (!configured) __builtin_trap();  // as the processor does
  }
  // Subnormal numbers count as zero, going in and coming out.
  static float flushed(float x) { return __builtin_fabsf(x) < 0x1p-126f ? 0.0f : x; }
  static float half(float pair, int which) {
    uint32_t bits;
    __builtin_memcpy(&bits, &pair, sizeof bits);
    bits = which == 0 ? bits << 16 : bits & 0xffff0000;
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return flushed(value);
  }
  void zero(int tile) {
    expect_configured();
    __builtin_memset(tiles[tile], 0, sizeof tiles[tile]);
  }
  void load(int tile, const void* from, int64_t stride) {
    expect_configured();
    for (int row = 0; row < 16; ++row) __builtin_memcpy(tiles[tile][row], static_cast<const char*>(from) + row * stride, 64);
  }
  void store(int tile, void* to, int64_t stride) const {
    expect_configured();
    for (int row = 0; row < 16; ++row) __builtin_memcpy(static_cast<char*>(to) + row * stride, tiles[tile][row], 64);
  }
  void multiply(int sum, int left, int right) {
    expect_configured();
    for (int row = 0; row < 16; ++row) {
      float even[16] = {}, odd[16] = {};
      for (int k = 0; k < 16; ++k) {
        const float a = half(tiles[left][row][k], 0), b = half(tiles[left][row][k], 1);
        for (int column = 0; column < 16; ++column) {
          even[column] = flushed(even[column] + a * half(tiles[right][k][column], 0));
          odd[column] = flushed(odd[column] + b * half(tiles[right][k][column], 1));
        }
      }
      for (int column = 0; column < 16; ++column) {
        tiles[sum][row][column] = flushed(tiles[sum][row][column] + flushed(even[column] + odd[column]));
      }
    }
  }
};
inline thread_local TileModel tile_model;
inline void finish_stores() {}

struct TileScope {
  explicit TileScope(bool wanted) { tile_model.configured = wanted; }
  ~TileScope() { tile_model.configured = false; }
  TileScope(const TileScope&) = delete;
};

#define INFINI_TILE_ZERO(tile) tile_model.zero(tile)
#define INFINI_TILE_LOAD(tile, from, stride) tile_model.load(tile, from, stride)
#define INFINI_TILE_STORE(tile, to, stride) tile_model.store(tile, to, stride)
#define INFINI_TILE_MULTIPLY(sum, left, right) tile_model.multiply(sum, left, right)

#endif
#endif

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

// C = A B of bfloat16 streams on AMX tiles, some ten times as fast as float32.
//
// A float32 number enters as two bfloat16: hi, what rounding leaves of it, and lo, what rounding took: 16 bits of
// mantissa together. Products are hi hi + hi lo + lo hi; what is left out is below 2^-17 of a product. A factor that is
// bfloat16 already has no lo.
//
// The micro-kernel: of the eight tiles four hold C, 32 rows by 32 columns of float32; two hold A, 32 rows by a depth of
// 32; two hold B, the same depth by 32 columns, as pairs of rows side by side. Each of the four loads of a step serves two
// of its four products, and a load takes 8 cycles where a product takes 16: the loads hide. Every element of C is summed
// over the depth in order, term by term, whatever rows stand beside it: results do not depend on the cut.
#pragma once

#include "cpu/elements.h"
#include "cpu/matmul.h"
#include "cpu/tile_registers.h"

namespace infini::cpu::INFINI_SIMD_LEVEL {

// Whether products of this type go to the tiles, for kernels that compute in T.
template <class T> inline bool tiled(Element element) { return kTiles && !kExact<T> && element == Element::BF16; }

// Subnormal numbers are zero to a tile. What it multiplies must therefore be far enough from them, or float64 does it.
constexpr uint16_t kSmallestTiledValue = (127 - 80) << 7;  // the bits of 2^-80, as bfloat16
constexpr float kSmallestTiled = 0x1p-40f, kLargestTiled = 0x1p30f, kSmallestTiledResult = 0x1p-60f;

// Room for packed factors: A of at most 64 rows, B.
struct Packing {
  uint16_t* left;
  uint32_t* right;
};
template <class T> constexpr T tile_depth(T depth) { return (depth + 31) / 32 * 32; }
constexpr int kPackedRows = 64;
static_assert(kPackedRows >= kTileRows && kPackedRows >= kTokens && kPackedRows >= kStateRows);

struct PackedLeft {
  const uint16_t* data;  // [term][kPackedRows][depth]
  int64_t depth;         // a multiple of 32
  int terms;
};
struct PackedRight {
  const uint32_t* data;  // [term][columns / 16][depth / 2][16] pairs
  int64_t depth;
  int columns;           // a multiple of 32
  int terms;
};

template <class Space> inline Packing take_packing(Space& space, bool wanted, int64_t depth, int64_t columns) {
  if (!wanted) return {};
  const size_t deep = size_t(tile_depth(depth)), wide = size_t(tile_depth(columns));
  return {space.template take<uint16_t>(2 * kPackedRows * deep), space.template take<uint32_t>(deep * wide)};
}

#if defined(INFINI_TILES)

static_assert(INFINI_VECTOR_BYTES == 64);  // a vector is a row of a tile

// What rounding to bfloat16 leaves of x, as float32.
inline Floats rounded(Floats x) {
  const Ints bits = (Ints)x;
  return (Floats)((bits + 0x7fff + (bits >> 16 & 1)) & int32_t(0xffff0000));
}
// Two vectors of such numbers as one of pairs, `even` in the low halves.
inline Ints pairs(Floats even, Floats odd) { return (Ints)odd | (((Ints)even >> 16) & 0xffff); }

inline void store_halves(Floats x, uint16_t* to) {
  uint32_t bits[16];
  store(bits, x);
  for (int lane = 0; lane < 16; ++lane) to[lane] = uint16_t(bits[lane] >> 16);
}

// Rows of [row][depth], zero beyond their end up to a multiple of 16.
inline PackedLeft pack_left(int terms, int rows, int depth, const float* data, int64_t stride, uint16_t* to) {
  const int64_t deep = tile_depth(int64_t(depth));
  for (int row = 0; row < rows; ++row) {
    for (int k = 0; k < deep; k += 16) {
      const Floats x = k < depth ? load<float>(data + row * stride + k) : Floats{};
      const Floats hi = rounded(x);
      store_halves(hi, to + row * deep + k);
      if (terms > 1) store_halves(rounded(x - hi), to + (kPackedRows + row) * deep + k);
    }
  }
  return {to, deep, terms};
}

// A 16 x 16 matrix of 32-bit numbers becomes its transpose: halves, quarters, ... of its blocks change places.
template <int width> inline void transpose_step(Ints* rows) {
  constexpr auto lane = [](int i, bool low) {
    return low ? ((i & width) ? 16 + i - width : i) : ((i & width) ? 16 + i : i + width);
  };
#define INFINI_LANES(low)                                                                                              \
  lane(0, low), lane(1, low), lane(2, low), lane(3, low), lane(4, low), lane(5, low), lane(6, low), lane(7, low),      \
      lane(8, low), lane(9, low), lane(10, low), lane(11, low), lane(12, low), lane(13, low), lane(14, low), lane(15, low)
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    if (i & width) continue;
    const Ints a = rows[i], b = rows[i + width];
    rows[i] = __builtin_shufflevector(a, b, INFINI_LANES(true));
    rows[i + width] = __builtin_shufflevector(a, b, INFINI_LANES(false));
  }
#undef INFINI_LANES
}
inline void transpose(Ints* rows) {
  transpose_step<8>(rows);
  transpose_step<4>(rows);
  transpose_step<2>(rows);
  transpose_step<1>(rows);
}

// Sixteen rows at `first` from a panel [depth][16], which is their transpose.
inline PackedLeft pack_left_panel(int depth, int first, const float* panel, uint16_t* to) {
  const int64_t deep = tile_depth(int64_t(depth));
  auto line = [&](int k) { return k < depth ? load<float>(panel + k * kPanel) : Floats{}; };
  for (int k = 0; k < deep; k += 32) {
    Ints hi[16], lo[16];
    for (int i = 0; i < 16; ++i) {
      const Floats even = line(k + 2 * i), odd = line(k + 2 * i + 1);
      hi[i] = pairs(rounded(even), rounded(odd));
      lo[i] = pairs(rounded(even - rounded(even)), rounded(odd - rounded(odd)));
    }
    transpose(hi);
    transpose(lo);
    for (int row = 0; row < 16; ++row) {
      store(to + (first + row) * deep + k, hi[row]);
      store(to + (kPackedRows + first + row) * deep + k, lo[row]);
    }
  }
  return {to, deep, 2};
}

// columns: a multiple of 16.
template <class B> inline PackedRight pack_right(int columns, int depth, Right<B> b, uint32_t* to) {
  constexpr int terms = sizeof(B) == sizeof(float) ? 2 : 1;
  const int64_t deep = tile_depth(int64_t(depth));
  const int wide = tile_depth(columns);
  uint32_t* const low = to + deep / 2 * wide;
  for (int column = 0; column < wide; column += 16) {
    const B* from = b.column(column);
    auto line = [&](int k) { return k < depth && column < columns ? load<float>(from + k * b.stride) : Floats{}; };
    for (int k = 0; k < deep; k += 2) {
      const Floats even = line(k), odd = line(k + 1);
      const int64_t at = column * (deep / 2) + k / 2 * 16;
      if constexpr (terms == 1) {
        store(to + at, pairs(even, odd));
      } else {
        const Floats even_hi = rounded(even), odd_hi = rounded(odd);
        store(to + at, pairs(even_hi, odd_hi));
        store(low + at, pairs(rounded(even - even_hi), rounded(odd - odd_hi)));
      }
    }
  }
  return {to, deep, wide, terms};
}

// 32 columns of C from `column` on, of 16 or 32 rows from `row` on, over all terms and the whole depth; [32][32] into `c`.
template <bool both> inline void multiply_square(const PackedLeft& a, const PackedRight& b, int row, int column, float* c,
                                                 int64_t c_stride) {
  finish_stores();
  INFINI_TILE_ZERO(0);
  INFINI_TILE_ZERO(1);
  if (both) {
    INFINI_TILE_ZERO(2);
    INFINI_TILE_ZERO(3);
  }
  const int64_t block = b.depth / 2 * 16;  // pairs of 16 columns
  for (int left_term = 0; left_term < a.terms; ++left_term) {
    for (int right_term = 0; right_term < b.terms && left_term + right_term < 2; ++right_term) {
      const uint16_t* left = a.data + (left_term * kPackedRows + row) * a.depth;
      const uint32_t* right = b.data + right_term * (b.depth / 2) * b.columns + column / 16 * block;
      for (int64_t k = 0; k < b.depth; k += 32) {
        INFINI_TILE_LOAD(6, right + k / 2 * 16, 64);
        INFINI_TILE_LOAD(7, right + block + k / 2 * 16, 64);
        INFINI_TILE_LOAD(4, left + k, a.depth * 2);
        INFINI_TILE_MULTIPLY(0, 4, 6);
        INFINI_TILE_MULTIPLY(1, 4, 7);
        if (both) {
          INFINI_TILE_LOAD(5, left + 16 * a.depth + k, a.depth * 2);
          INFINI_TILE_MULTIPLY(2, 5, 6);
          INFINI_TILE_MULTIPLY(3, 5, 7);
        }
      }
    }
  }
  INFINI_TILE_STORE(0, c, c_stride * 4);
  INFINI_TILE_STORE(1, c + 16, c_stride * 4);
  if (both) {
    INFINI_TILE_STORE(2, c + 16 * c_stride, c_stride * 4);
    INFINI_TILE_STORE(3, c + 16 * c_stride + 16, c_stride * 4);
  }
}

// columns: a multiple of 16. Nothing is written beyond `rows` and `columns`.
inline void multiply_packed(int rows, int columns, const PackedLeft& a, const PackedRight& b, float* c, int64_t c_stride) {
  alignas(64) float aside[32 * 32];
  for (int row = 0; row < rows; row += 32) {
    const int high = rows - row < 32 ? rows - row : 32;
    for (int column = 0; column < columns; column += 32) {
      const int wide = columns - column < 32 ? columns - column : 32;
      const bool both = high > 16, whole = wide == 32 && high % 16 == 0;
      float* const to = c + row * c_stride + column;
      float* const place = whole ? to : aside;
      const int64_t stride = whole ? c_stride : 32;
      if (both) {
        multiply_square<true>(a, b, row, column, place, stride);
      } else {
        multiply_square<false>(a, b, row, column, place, stride);
      }
      for (int i = 0; i < high && !whole; ++i) {
        for (int j = 0; j < wide; j += 16) store(to + i * c_stride + j, load<float>(aside + i * 32 + j));
      }
    }
  }
}

#endif

// matmul, or the same on tiles where `packing` has room for it. A's rows lie one after the other, zero up to the next
// multiple of 16.
template <class T, class B>
inline void multiply([[maybe_unused]] const Packing& packing, int rows, int columns, int depth, Left<T> a, Right<B> b, T* c,
                     int64_t c_stride) {
#if defined(INFINI_TILES)
  if constexpr (!kExact<T>) {
    if (packing.left) {
      return multiply_packed(rows, columns, pack_left(2, rows, depth, a.data, a.stride, packing.left),
                             pack_right(columns, depth, b, packing.right), c, c_stride);
    }
  }
#endif
  matmul(rows, columns, depth, a, b, c, c_stride);
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

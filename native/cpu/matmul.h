// C = A B, the one matrix product behind everything: scores, weighted values, retrieval, state update.
// Every element of C is one chain of multiply-adds over the depth, in order, whatever tile it falls into: that is
// why results do not depend on how rows are grouped into calls, tiles or threads.
#pragma once

#include "cpu/simd.h"

namespace infini::cpu::INFINI_SIMD_LEVEL {

template <class T> constexpr bool kExact = sizeof(T) == sizeof(double);  // float64, not float32
constexpr int kMaxRows = INFINI_VECTOR_BYTES == 64 ? 12 : 6;  // with 2 vectors a row: accumulators fill the registers

// Where the left factor's elements lie: [row][depth] has step 1, its transpose [depth][row] has stride 1.
template <class T> struct Left {
  const T* data;
  int64_t stride, step = 1;
  Left from_row(int64_t row) const { return {data + row * stride, stride, step}; }
};

// Where the right factor's elements lie: panels of 16 columns, each [depth][16] at `stride`. The panels of an ordinary
// matrix [depth][column] are 16 elements apart, those of cached keys a whole panel.
template <class B> struct Right {
  const B* data;
  int64_t stride, panel = kPanel;
  // Constant or a multiple of a panel where it is called, so the divisions cost nothing.
  const B* column(int64_t column) const { return data + column / kPanel * panel + column % kPanel; }
  Right from_column(int64_t first) const { return {column(first), stride, panel}; }
};

// R rows by V vectors of C, kept in registers over the whole depth; what C holds already is added at the end, if wanted.
template <int R, int V, bool add, class T, class B>
inline void register_tile(int64_t depth, Left<T> a, Right<B> b, T* c, int64_t c_stride) {
  Vector<T> sum[R][V];
#pragma GCC unroll 16
  for (int row = 0; row < R; ++row) {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) sum[row][v] = Vector<T>{};
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vector<T> right[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) right[v] = load<T>(b.column(v * kLanes<T>) + k * b.stride);
#pragma GCC unroll 16
    for (int row = 0; row < R; ++row) {
      const Vector<T> left = broadcast(a.data[row * a.stride + k * a.step]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) sum[row][v] += left * right[v];
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < R; ++row) {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      T* to = c + row * c_stride + v * kLanes<T>;
      store(to, add ? load<T>(to) + sum[row][v] : sum[row][v]);
    }
  }
}

template <int R, int V, bool add, class T, class B>
inline void last_rows(int rows, int64_t depth, Left<T> a, Right<B> b, T* c, int64_t c_stride) {
  if constexpr (R > 0) {
    if (rows == R) {
      register_tile<R, V, add>(depth, a, b, c, c_stride);
    } else {
      last_rows<R - 1, V, add>(rows, depth, a, b, c, c_stride);
    }
  }
}

// All rows of V vectors of columns.
template <int V, bool add, class T, class B>
inline void column_strip(int rows, int64_t depth, Left<T> a, Right<B> b, T* c, int64_t c_stride) {
  int row = 0;
  for (; row + kMaxRows <= rows; row += kMaxRows) {
    // A few rows alone would not hide the latency of their chains: the last two tiles share what is left.
    if (rows - row > kMaxRows && rows - row < kMaxRows + kMaxRows / 2) break;
    register_tile<kMaxRows, V, add>(depth, a.from_row(row), b, c + row * c_stride, c_stride);
  }
  const int rest = rows - row, first = rest > kMaxRows ? (rest + 1) / 2 : rest;
  last_rows<kMaxRows, V, add>(first, depth, a.from_row(row), b, c + row * c_stride, c_stride);
  row += first;
  last_rows<kMaxRows, V, add>(rest - first, depth, a.from_row(row), b, c + row * c_stride, c_stride);
}

// columns: a multiple of 16.
template <bool add = false, class T, class B>
inline void matmul(int rows, int columns, int64_t depth, Left<T> a, Right<B> b, T* c,
                   int64_t c_stride) {
  int column = 0;
  // One token at a time: more columns at once hide the latency of the chains.
  if (rows == 1) {
    constexpr int wide = 8;
    for (; column + wide * kLanes<T> <= columns; column += wide * kLanes<T>) {
      register_tile<1, wide, add>(depth, a, b.from_column(column), c + column, c_stride);
    }
  }
  if (rows <= 2) {
    constexpr int wide = 4;
    for (; column + wide * kLanes<T> <= columns; column += wide * kLanes<T>) {
      if (rows == 1) {
        register_tile<1, wide, add>(depth, a, b.from_column(column), c + column, c_stride);
      } else {
        register_tile<2, wide, add>(depth, a, b.from_column(column), c + column, c_stride);
      }
    }
  }
  constexpr int step = 2 * kLanes<T>;
  for (; column + step <= columns; column += step) {
    column_strip<2, add>(rows, depth, a, b.from_column(column), c + column, c_stride);
  }
  for (; column < columns; column += kLanes<T>) {  // float32 in 512-bit vectors: a panel of keys, an odd 16 columns
    column_strip<1, add>(rows, depth, a, b.from_column(column), c + column, c_stride);
  }
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

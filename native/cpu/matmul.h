// C = A B, the one matrix product behind everything: scores, weighted values, retrieval, state update.
// Every element of C is one chain of multiply-adds over the depth, in order, whatever tile it falls into: that is
// why results do not depend on how rows are grouped into calls, tiles or threads.
#pragma once

#include "cpu/simd.h"

namespace infini::cpu::INFINI_SIMD_LEVEL {

constexpr int kMaxRows = INFINI_VECTOR_BYTES == 64 ? 12 : 6;  // with 2 vectors a row: accumulators fill the registers

// R rows by V vectors of C, kept in registers over the whole depth. A is [row][depth], B is [depth][column].
template <int R, int V, class T, class B>
inline void register_tile(int64_t depth, const T* a, int64_t a_stride, const B* b, int64_t b_stride, T* c,
                          int64_t c_stride) {
  Vector<T> sum[R][V];
#pragma GCC unroll 16
  for (int row = 0; row < R; ++row) {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) sum[row][v] = Vector<T>{};
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vector<T> right[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) right[v] = load<T>(b + k * b_stride + v * kLanes<T>);
#pragma GCC unroll 16
    for (int row = 0; row < R; ++row) {
      const Vector<T> left = broadcast(a[row * a_stride + k]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) sum[row][v] += left * right[v];
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < R; ++row) {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) store(c + row * c_stride + v * kLanes<T>, sum[row][v]);
  }
}

template <int R, class T, class B>
inline void last_rows(int rows, int64_t depth, const T* a, int64_t a_stride, const B* b, int64_t b_stride, T* c,
                      int64_t c_stride) {
  if constexpr (R > 0) {
    if (rows == R) {
      register_tile<R, 2>(depth, a, a_stride, b, b_stride, c, c_stride);
    } else {
      last_rows<R - 1>(rows, depth, a, a_stride, b, b_stride, c, c_stride);
    }
  }
}

// columns: a multiple of 16.
template <class T, class B>
inline void matmul(int rows, int columns, int64_t depth, const T* a, int64_t a_stride, const B* b, int64_t b_stride,
                   T* c, int64_t c_stride) {
  int column = 0;
  // One token at a time: more columns at once hide the latency of the chains.
  if (rows == 1) {
    constexpr int wide = 8;
    for (; column + wide * kLanes<T> <= columns; column += wide * kLanes<T>) {
      register_tile<1, wide>(depth, a, a_stride, b + column, b_stride, c + column, c_stride);
    }
  }
  if (rows <= 2) {
    constexpr int wide = 4;
    for (; column + wide * kLanes<T> <= columns; column += wide * kLanes<T>) {
      if (rows == 1) {
        register_tile<1, wide>(depth, a, a_stride, b + column, b_stride, c + column, c_stride);
      } else {
        register_tile<2, wide>(depth, a, a_stride, b + column, b_stride, c + column, c_stride);
      }
    }
  }
  constexpr int step = 2 * kLanes<T>;
  for (; column + step <= columns; column += step) {
    int row = 0;
    for (; row + kMaxRows <= rows; row += kMaxRows) {
      register_tile<kMaxRows, 2>(depth, a + row * a_stride, a_stride, b + column, b_stride,
                                 c + row * c_stride + column, c_stride);
    }
    last_rows<kMaxRows - 1>(rows - row, depth, a + row * a_stride, a_stride, b + column, b_stride,
                            c + row * c_stride + column, c_stride);
  }
  for (; column < columns; column += kLanes<T>) {  // float32 in 512-bit vectors: an odd 16 columns
    for (int row = 0; row < rows; ++row) {
      register_tile<1, 1>(depth, a + row * a_stride, a_stride, b + column, b_stride, c + row * c_stride + column,
                          c_stride);
    }
  }
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

// Operands of decoding: sixteen query rows in shared memory, and what a warp multiplies them with.
//
// Elements of queries and keys are multiplied as they are, queries times a power of two. What is computed from
// elements, turned queries and keys or features, is not rounded back to them: it is Wide, float32 or the sum of two
// bfloat16 (the product of the two small parts is left out).
// With a rotation a score depends on the distance of the two positions alone. So keys are turned by their place in the
// step and queries by theirs counted from the same start: every step meets the same few rows of the table, which stay
// in the multiprocessor's cache.
#pragma once

#include <type_traits>

#include "kernels/fragments.cuh"
#include "kernels/rows.cuh"

namespace infini::cuda::decoding {

template <class T> struct WideRows {
  static constexpr int kTerms = std::is_same_v<T, float> ? 1 : 2;
  using Element = std::conditional_t<kTerms == 1, float, bfloat16>;

  unsigned char* data;  // [kTerms][16 rows]
  int columns;

  __device__ Rows<Element> term(int i) const { return {data + i * 16 * row_bytes(columns, sizeof(Element)), columns}; }
  __device__ void put(int row, int column, float x) const {
    if constexpr (kTerms == 1) {
      term(0).at(row, column) = x;
    } else {
      const Bfloat16Pair parts = split(x);
      term(0).at(row, column) = parts.high;
      term(1).at(row, column) = parts.low;
    }
  }
};

// The products of sixteen columns of WideRows, as A, with sixteen rows and eight columns of float32 numbers. Of those a
// lane gives four, in its column lane / 4 and the rows row(0..3).
template <class Element> struct WideProduct;

template <> struct WideProduct<float> {
  Fragments<float>::A a;

  __device__ static int row(int i) { return (lane_id() & 3) + 4 * (i & 1) + 8 * (i >> 1); }
  __device__ void load(const WideRows<float>& rows, int column) {
    Fragments<float>::load_a(a, rows.term(0), 0, column);
  }
  __device__ void multiply(float (&acc)[4], const float (&x)[4]) const {
    Fragments<float>::multiply(acc, a, {{{x[0], x[1]}, {x[2], x[3]}}});
  }
};

template <> struct WideProduct<bfloat16> {
  using Fragment = Fragments<bfloat16>;
  Fragment::A high, low;

  __device__ static int row(int i) { return 2 * (lane_id() & 3) + (i & 1) + 8 * (i >> 1); }
  template <class T> __device__ void load(const WideRows<T>& rows, int column) {
    Fragment::load_a(high, rows.term(0), 0, column);
    Fragment::load_a(low, rows.term(1), 0, column);
  }
  __device__ void multiply(float (&acc)[4], const float (&x)[4]) const {
    Fragment::B x_high, x_low;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t first = __float_as_uint(x[2 * i]) & 0xffff0000u;
      const uint32_t second = __float_as_uint(x[2 * i + 1]) & 0xffff0000u;
      x_high.r[i] = first >> 16 | second;
      x_low.r[i] = pack_rounded<bfloat16>(x[2 * i] - __uint_as_float(first), x[2 * i + 1] - __uint_as_float(second));
    }
    Fragment::multiply(acc, high, x_low);
    Fragment::multiply(acc, low, x_high);
    Fragment::multiply(acc, high, x_high);
  }
};

template <class T> using Product = WideProduct<typename WideRows<T>::Element>;

template <class T> struct QueryRows {
  unsigned char* data;
  int head_dim;

  __device__ Rows<T> plain() const { return {data, head_dim}; }
  // Of the pairs (i, i + head_dim / 2) the first halves, padded, then the second ones.
  __device__ int second() const { return padded(head_dim / 2); }
  __device__ WideRows<T> turned() const { return {data, 2 * second()}; }

  // Zeroes the rows that no query fills.
  template <int kThreads, bool kTurned> __device__ void clear(int first) const {
    if constexpr (kTurned) {
      for (int i = 0; i < WideRows<T>::kTerms; ++i) turned().term(i).template clear<kThreads>(first, 16);
    } else {
      plain().template clear<kThreads>(first, 16);
    }
  }
  template <int kThreads> __device__ void write(int row, const T* query, float factor) const {
    for (int i = int(threadIdx.x); i < padded(head_dim); i += kThreads) {
      plain().at(row, i) = from_float<T>(i < head_dim ? to_float(query[i]) * factor : 0.0f);
    }
  }
  // turns: the row of the table for the query's distance; null: writes zeros.
  template <int kThreads>
  __device__ void write_turned(int row, const T* query, float factor, const float2* turns) const {
    const int half = head_dim / 2;
    for (int i = int(threadIdx.x); i < second(); i += kThreads) {
      float2 pair = {0.0f, 0.0f};
      if (turns != nullptr && i < half) {
        const float x = to_float(query[i]) * factor, y = to_float(query[i + half]) * factor;
        pair = {fmaf(-y, turns[i].y, x * turns[i].x), fmaf(x, turns[i].y, y * turns[i].x)};
      }
      turned().put(row, i, pair.x);
      turned().put(row, second() + i, pair.y);
    }
  }
};

// Sixteen rows of queries with keys first .. first + 16.
template <class T>
__device__ __forceinline__ void score(float (&scores)[2][4], const QueryRows<T>& queries, const Rows<T>& keys,
                                      int first) {
  using Fragment = Fragments<T>;
  for (int k = 0; k < keys.columns; k += 16) {
    typename Fragment::A a;
    typename Fragment::B b[2];
    Fragment::load_a(a, queries.plain(), 0, k);
    Fragment::load_b(b, keys, first, k);
    Fragment::multiply(scores[0], a, b[0]);
    Fragment::multiply(scores[1], a, b[1]);
  }
}

// turns: [segment_length][head_dim / 2], cosine and sine.
template <class T>
__device__ __forceinline__ void score_turned(float (&scores)[2][4], const QueryRows<T>& queries, const Rows<T>& keys,
                                             int first, const float2* turns, int segment_length) {
  const int half = keys.columns / 2;
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    const int key = first + 8 * n + (lane_id() >> 2);
    const T* const low = &keys.at(key, 0);
    const float2* const turns_of_key = turns + min(key, segment_length - 1) * half;
    for (int k = 0; k < half; k += 16) {
      float x[4], y[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int pair = k + Product<T>::row(i);
        const bool exists = pair < half;
        const float a = exists ? to_float(low[pair]) : 0.0f, b = exists ? to_float(low[pair + half]) : 0.0f;
        const float2 turn = exists ? turns_of_key[pair] : float2{0.0f, 0.0f};
        x[i] = fmaf(-b, turn.y, a * turn.x);
        y[i] = fmaf(a, turn.y, b * turn.x);
      }
      Product<T> product;
      product.load(queries.turned(), k);
      product.multiply(scores[n], x);
      product.load(queries.turned(), queries.second() + k);
      product.multiply(scores[n], y);
    }
  }
}

}  // namespace infini::cuda::decoding

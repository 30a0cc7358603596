// The scores q . k of some query rows against one block of cached keys, rotated first where positions are rotary; and the
// norms |k|^2, by which attention.h decides whom float32 may serve. In float32 a score is a sum of chains of at most kChain
// components each, which bounds what cancelling terms can lose.
#pragma once

#include "cpu/elements.h"
#include "cpu/matmul.h"
#include "cpu/tiles.h"

namespace infini::cpu::INFINI_SIMD_LEVEL {

constexpr int kChain = 64;

// Room for a block of keys and values where they can not be multiplied as they lie.
template <class T> struct Blocks {
  float* keys;           // panels of [headDim][kPanel]
  T* rotated_keys;       // the same
  float* norms;          // [kBlock] |k|^2
  float* values;         // [kBlock][columns]
};

template <class T> inline Vector<T> load_turn(const double* from) {
  if constexpr (kExact<T>) {
    return load<double>(from);
  } else {
    return narrow(load<double>(from), load<double>(from + kLanes<double>));
  }
}

// float32 copies of so many keys, zeros where the last panel ends early.
inline void copy_keys(const Forward& work, int64_t first_key, int keys, float* to) {
  const int head_dim = work.dims.head_dim;
  const int64_t whole = work.segment.length / kPanel * kPanel, rest = work.segment.length - whole;
  const int64_t ready = first_key + keys <= whole ? keys : whole - first_key;
  decode(work.dims.element, work.segment.keys, first_key * head_dim, ready * head_dim, to);
  if (ready == keys) return;
  for (int i = 0; i < head_dim; ++i) {
    float* lane = to + ready * head_dim + i * kPanel;
    decode(work.dims.element, work.segment.keys, whole * head_dim + i * rest, rest, lane);
    for (int64_t key = rest; key < kPanel; ++key) lane[key] = 0;
  }
}

template <class T> inline void rotate_panel(const Forward& work, const float* keys, int64_t first_key, T* rotated) {
  const int64_t half = work.dims.head_dim / 2 * int64_t(kPanel);
  const double* cosines = work.rotary->cosines + first_key / kPanel * half;
  const double* sines = work.rotary->sines + first_key / kPanel * half;
  for (int64_t i = 0; i < half; i += kLanes<T>) {
    const Vector<T> a = load<T>(keys + i), b = load<T>(keys + half + i);
    const Vector<T> cosine = load_turn<T>(cosines + i), sine = load_turn<T>(sines + i);
    store(rotated + i, a * cosine - b * sine);
    store(rotated + half + i, b * cosine + a * sine);
  }
}

template <class B> inline Right<B> key_panels(const B* panels, int head_dim) {
  return {panels, kPanel, int64_t(head_dim) * kPanel};
}

// |k|^2 of some panels of 16 keys; all of a block's at once, because each is one chain of additions.
template <int V, class B> inline void panel_norms(Right<B> keys, int head_dim, float* norms) {
  Floats sum[V] = {};
  for (int i = 0; i < head_dim; ++i) {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      const Floats component = load<float>(keys.column(v * kLanes<float>) + i * keys.stride);
      sum[v] += component * component;
    }
  }
#pragma GCC unroll 16
  for (int v = 0; v < V; ++v) store(norms + v * kLanes<float>, sum[v]);
}
template <class B> inline void key_norms(Right<B> keys, int count, int head_dim, float* norms) {
  if (count == kBlock) return panel_norms<kBlock / kLanes<float>>(keys, head_dim, norms);
  for (int key = 0; key < count; key += kPanel) {
    panel_norms<kPanel / kLanes<float>>(keys.from_column(key), head_dim, norms + key);
  }
}

// One row's scores against V vectors of keys, and the norms of these, on one reading of the keys: a token alone is as fast
// as its keys come from memory. The scores are matmul's, bit by bit.
template <int V, class B>
inline void score_and_measure(const float* query, Right<B> keys, int head_dim, float* scores, float* norms) {
  Floats score[V], norm[V];
#pragma GCC unroll 16
  for (int v = 0; v < V; ++v) norm[v] = Floats{};
  for (int first = 0; first < head_dim; first += kChain) {
    const int end = head_dim - first < kChain ? head_dim : first + kChain;
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) score[v] = Floats{};
    for (int i = first; i < end; ++i) {
      const Floats component = broadcast(query[i]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) {
        const Floats key = load<float>(keys.column(v * kLanes<float>) + i * keys.stride);
        score[v] += component * key;
        norm[v] += key * key;
      }
    }
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      float* to = scores + v * kLanes<float>;
      store(to, first > 0 ? load<float>(to) + score[v] : score[v]);
    }
  }
#pragma GCC unroll 16
  for (int v = 0; v < V; ++v) store(norms + v * kLanes<float>, norm[v]);
}
template <class B>
inline void score_one_row(const float* query, Right<B> keys, int count, int head_dim, float* scores, float* norms) {
  constexpr int step = 4 * kLanes<float>;  // eight chains
  int key = 0;
  for (; key + step <= count; key += step) {
    score_and_measure<4>(query, keys.from_column(key), head_dim, scores + key, norms + key);
  }
  for (; key < count; key += kPanel) {
    score_and_measure<kPanel / kLanes<float>>(query, keys.from_column(key), head_dim, scores + key, norms + key);
  }
}

// Scores of some rows, chain by chain.
template <class T, class B>
inline void score_rows(int rows, int keys, int head_dim, Left<T> queries, Right<B> panels, T* scores) {
  const int chain = kExact<T> || head_dim < kChain ? head_dim : kChain;
  matmul(rows, keys, chain, queries, panels, scores, kBlock);
  for (int first = chain; first < head_dim; first += chain) {
    const int length = head_dim - first < chain ? head_dim - first : chain;
    matmul<true>(rows, keys, length, Left<T>{queries.data + first, queries.stride},
                 Right<B>{panels.data + first * panels.stride, panels.stride, panels.panel}, scores, kBlock);
  }
}

// Calls body(panels) once, with the first `keys`, a multiple of kPanel, of a block as they are to be multiplied. Many rows want their float32 keys made once; one or two are faster with the keys where they are.
template <class T, class Body>
inline void with_keys(const Forward& work, const Blocks<T>& blocks, int64_t first_key, int keys, int rows, Body body) {
  const int head_dim = work.dims.head_dim;
  const bool whole = first_key + keys <= work.segment.length;
  const bool as_they_lie = work.dims.element == Element::F32 || tiled<T>(work.dims.element) || (rows <= 2 && !kExact<T>);
  if (whole && !work.rotary && as_they_lie) {
    with_element(work.dims.element, [&](auto stored) {
      using S = typename decltype(stored)::type;
      if constexpr (!kExact<T> || sizeof(S) == sizeof(float)) {
        const auto panels = key_panels(static_cast<const S*>(work.segment.keys) + first_key * head_dim, head_dim);
        body(panels);
      }
    });
    return;
  }
  copy_keys(work, first_key, keys, blocks.keys);
  const auto panels = key_panels(static_cast<const float*>(blocks.keys), head_dim);
  if (!work.rotary) return body(panels);
  for (int key = 0; key < keys; key += kPanel) {
    rotate_panel(work, blocks.keys + int64_t(key) * head_dim, first_key + key,
                 blocks.rotated_keys + int64_t(key) * head_dim);
  }
  body(key_panels(static_cast<const T*>(blocks.rotated_keys), head_dim));
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

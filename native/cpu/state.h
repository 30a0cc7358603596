// Absorbing a full segment: M' = M + sigma(K)^T U, z' = z + sum sigma(k), with U = V (linear) or
// U = V - sigma(K)M / (sigma(K)z) (delta). Products are float32 within a block of kTokens and summed in float64 across
// blocks, until M' itself is rounded, once per segment: so a sum that nearly cancels survives. Segments whose
// numbers float32 does not hold are done in float64 throughout (retrieval.h says why).
#pragma once

#include "cpu/retrieval.h"

namespace infini::cpu::INFINI_SIMD_LEVEL {

// Lanes of panel `first / kPanel`, element i: keys first .. first + width - 1.
inline int panel_width(const Segment& segment, int64_t first) {
  const int64_t rest = segment.length - first;
  return rest < kPanel ? int(rest) : kPanel;
}

// sigma of one panel of keys, [headDim][kPanel], 0 in lanes beyond the segment. False when float32 will not do.
template <class T> inline bool key_features(const Dims& dims, const Segment& segment, int64_t first, T* features) {
  const int width = panel_width(segment, first);
  const int64_t at = first * dims.head_dim;
  if (width == kPanel) {
    decode(dims.element, segment.keys, at, int64_t(dims.head_dim) * kPanel, features);
  } else {
    for (int i = 0; i < dims.head_dim; ++i) {
      decode(dims.element, segment.keys, at + int64_t(i) * width, width, features + i * kPanel);
      for (int key = width; key < kPanel; ++key) features[i * kPanel + key] = 0;
    }
  }
  Vector<T> low = broadcast(T(1)), high{};
  for (int i = 0; i < dims.head_dim * kPanel; i += kLanes<T>) {
    const Vector<T> feature = sigma(load<T>(features + i));
    store(features + i, feature);
    low = minimum(low, feature);
    high = maximum(high, feature);
  }
  for (int i = 0; i < dims.head_dim; ++i) {
    for (int key = width; key < kPanel; ++key) features[i * kPanel + key] = 0;  // no key, and sigma(0) is 1
  }
  const bool tile = tiled<T>(dims.element);
  return reduce(low, [](T a, T b) { return a < b ? a : b; }) >= (tile ? kSmallestTiled : kSmallestFeature) &&
         reduce(high, [](T a, T b) { return a > b ? a : b; }) <= (tile ? kLargestTiled : kLargest);
}

// 1 / (sigma(k) . z) of one panel of keys. False when float32 will not do.
template <class T> inline bool read_shares(const double* normalizer, int head_dim, int width, const T* features, T* shares) {
  constexpr int vectors = kPanel / kLanes<double>;
  Doubles sum[vectors];
#pragma GCC unroll 16
  for (int v = 0; v < vectors; ++v) sum[v] = Doubles{};
  for (int i = 0; i < head_dim; ++i) {
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) sum[v] += load<double>(features + i * kPanel + v * kLanes<double>) * normalizer[i];
  }
  double weights[kPanel];
#pragma GCC unroll 16
  for (int v = 0; v < vectors; ++v) store(weights + v * kLanes<double>, sum[v]);
  bool trusted = true;
  for (int key = 0; key < width; ++key) {
    shares[key] = weights[key] > 0 ? T(1.0 / weights[key]) : T(0);
    trusted &= is_ordinary_weight(weights[key]);
  }
  return trusted;
}

// sigma(K)M for some panels of keys.
template <class T>
inline void read_panels(const Dims& dims, int keys, const T* features, const float* matrix, T* retrieved,
                        [[maybe_unused]] const Packing& packing) {
  const int columns = padded(dims.value_dim);
  const Right<float> right{matrix, columns};
#if defined(INFINI_TILES)
  if constexpr (!kExact<T>) {
    if (packing.left) {
      PackedLeft left;
      for (int key = 0; key < keys; key += kPanel) {
        left = pack_left_panel(dims.head_dim, key, features + int64_t(key) * dims.head_dim, packing.left);
      }
      return multiply_packed(keys, columns, left, pack_right(columns, dims.head_dim, right, packing.right), retrieved, columns);
    }
  }
#endif
  for (int key = 0; key < keys; key += kPanel) {
    const int width = keys - key < kPanel ? keys - key : kPanel;
    matmul(width, columns, dims.head_dim, Left<T>{features + int64_t(key) * dims.head_dim, 1, kPanel}, right,
           retrieved + int64_t(key) * columns, columns);
  }
}

template <class T> inline bool residual_block(const Residual& work, void* block) {
  const Dims& dims = work.dims;
  const int columns = padded(dims.value_dim);
  const bool on_tiles = tiled<T>(dims.element);
  Workspace workspace(block);
  T* retrieved = workspace.take<T>(size_t(kTokens) * columns);
  T* value = workspace.take<T>(columns);
  float* copy = workspace.take<float>(size_t(dims.head_dim) * columns);
  const float* matrix = work.memory ? padded_matrix(dims, work.memory->matrix, copy) : nullptr;

  bool trusted = true;
  T* const all_features = static_cast<T*>(work.features) + work.begin * dims.head_dim;
  for (int64_t first = work.begin; first < work.end; first += kPanel) {
    trusted &= key_features(dims, work.segment, first, all_features + (first - work.begin) * dims.head_dim);
  }
  if (matrix) {
    const TileScope scope(on_tiles);
    read_panels(dims, int(work.end - work.begin), all_features, matrix, retrieved,
                take_packing(workspace, on_tiles, dims.head_dim, columns));
  }
  Vector<T> largest{};
  for (int64_t first = work.begin; first < work.end; first += kPanel) {
    const int width = panel_width(work.segment, first);
    const T* features = all_features + (first - work.begin) * dims.head_dim;
    T shares[kPanel];
    if (matrix) trusted &= read_shares(work.memory->normalizer, dims.head_dim, width, features, shares);
    auto large = Vector<T>{} != Vector<T>{};
    for (int key = 0; key < width; ++key) {
      decode(dims.element, work.segment.values, (first + key) * dims.value_dim, dims.value_dim, value);
      for (int j = dims.value_dim; j < columns; ++j) value[j] = 0;
      T* out = static_cast<T*>(work.residual) + (first + key) * columns;
      const T* read = retrieved + (first - work.begin + key) * columns;
      for (int j = 0; j < columns; j += kLanes<T>) {
        Vector<T> rest = load<T>(value + j);
        if (matrix) rest -= load<T>(read + j) * shares[key];
        store(out + j, rest);
        const Vector<T> size = maximum(rest, -rest);
        large |= !(size <= T(kLargest));  // NaN counts as large
        largest = maximum(largest, size);
      }
    }
    trusted &= reduce(large, [](auto a, auto b) { return a | b; }) == 0;
  }
  if (on_tiles) {
    const T most = reduce(largest, [](T a, T b) { return a > b ? a : b; });
    trusted &= most == 0 || (most >= kSmallestTiled && most <= kLargestTiled);
  }
  return trusted;
}

inline bool residual(const Residual& work, void* block) {
  return work.exact ? residual_block<double>(work, block) : residual_block<float>(work, block);
}

template <class T> inline bool absorb_rows(const Absorb& work, void* block) {
  const Dims& dims = work.dims;
  const int rows = work.end - work.begin;
  const int columns = padded(dims.value_dim);
  Workspace workspace(block);
  T* keys = workspace.take<T>(size_t(kStateRows) * kTokens);  // sigma(K) of this block, transposed
  T* product = workspace.take<T>(size_t(kStateRows) * columns);
  double* sum = workspace.take<double>(size_t(kStateRows) * columns);
  double* mass = workspace.take<double>(size_t(kStateRows) * kLanes<double>);  // the sums of sigma(k), lane by lane
  const bool on_tiles = tiled<T>(dims.element);
  const TileScope scope(on_tiles);
  const Packing packing = take_packing(workspace, on_tiles, kTokens, columns);
  for (int64_t i = 0; i < int64_t(rows) * columns; ++i) sum[i] = 0;
  for (int64_t i = 0; i < int64_t(rows) * kLanes<double>; ++i) mass[i] = 0;

  for (int64_t first = 0; first < work.segment.length; first += kTokens) {
    const int64_t rest = work.segment.length - first;
    const int tokens = rest < kTokens ? int(rest) : kTokens;
    for (int token = 0; token < tokens; token += kPanel) {
      const T* features = static_cast<const T*>(work.features) + (first + token) * dims.head_dim + work.begin * kPanel;
      for (int row = 0; row < rows; ++row) {
        T* lanes = keys + row * kTokens + token;
        Doubles total = load<double>(mass + row * kLanes<double>);
        for (int key = 0; key < kPanel; key += kLanes<double>) total += load<double>(features + row * kPanel + key);
        for (int key = 0; key < kPanel; key += kLanes<T>) store(lanes + key, load<T>(features + row * kPanel + key));
        store(mass + row * kLanes<double>, total);
      }
    }
    const T* residual = static_cast<const T*>(work.residual) + first * columns;
    multiply(packing, rows, columns, tokens, Left<T>{keys, kTokens}, Right<T>{residual, columns}, product, columns);
    for (int64_t i = 0; i < int64_t(rows) * columns; i += kLanes<double>) {
      store(sum + i, load<double>(sum + i) + load<double>(product + i));
    }
  }

  bool finite = true;
  for (int row = 0; row < rows; ++row) {
    const int64_t at = int64_t(work.begin + row) * dims.value_dim;
    for (int j = 0; j < dims.value_dim; ++j) {
      const double old = work.memory ? double(work.memory->matrix[at + j]) : 0.0;
      const float updated = float(old + sum[int64_t(row) * columns + j]);
      finite &= __builtin_fabsf(updated) <= 3.402823466e38f;
      work.matrix[at + j] = updated;
    }
    work.normalizer[work.begin + row] =
        (work.memory ? work.memory->normalizer[work.begin + row] : 0.0) +
        reduce(load<double>(mass + row * kLanes<double>), [](double a, double b) { return a + b; });
  }
  return finite;
}

inline bool absorb(const Absorb& work, void* block) {
  return work.exact ? absorb_rows<double>(work, block) : absorb_rows<float>(work, block);
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

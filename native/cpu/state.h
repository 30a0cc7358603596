// Absorbing a full segment: M' = M + sigma(K)^T U, z' = z + sum sigma(k), with U = V (linear) or
// U = V - sigma(K)M / (sigma(K)z) (delta). All in float64 until M' itself is rounded, once per segment: a correction
// a thousand times smaller than V survives, and so does a sum that nearly cancels.
#pragma once

#include "cpu/retrieval.h"

namespace infini::cpu::INFINI_SIMD_LEVEL {

// Lanes of panel `first / kPanel`, element i: keys first .. first + width - 1.
inline int panel_width(const Segment& segment, int64_t first) {
  const int64_t rest = segment.length - first;
  return rest < kPanel ? int(rest) : kPanel;
}

inline void residual(const Residual& work, void* block) {
  const Dims& dims = work.dims;
  const int tokens = int(work.end - work.begin);
  const int stride = padded(dims.head_dim), columns = padded(dims.value_dim);
  Workspace workspace(block);
  double* features = workspace.take<double>(size_t(kTokens) * stride);
  double* retrieved = workspace.take<double>(size_t(kTokens) * columns);
  double* lanes = workspace.take<double>(kPanel);
  double* value = workspace.take<double>(columns);

  if (work.memory) {
    for (int64_t first = work.begin; first < work.end; first += kPanel) {
      const int width = panel_width(work.segment, first);
      for (int i = 0; i < dims.head_dim; ++i) {
        decode(dims.element, work.segment.keys, first * dims.head_dim + int64_t(i) * width, width, lanes);
        for (int key = 0; key < width; ++key) features[(first - work.begin + key) * stride + i] = lanes[key];
      }
    }
    for (int token = 0; token < tokens; ++token) {
      double* feature = features + int64_t(token) * stride;
      for (int i = dims.head_dim; i < stride; ++i) feature[i] = 0;
      apply_sigma(feature, dims.head_dim);
    }
    read_memory(dims, *work.memory, tokens, features, stride, retrieved, workspace);
  }
  for (int token = 0; token < tokens; ++token) {
    decode(dims.element, work.segment.values, (work.begin + token) * dims.value_dim, dims.value_dim, value);
    const double* read = retrieved + int64_t(token) * columns;
    double* out = work.residual + (work.begin + token) * columns;
    for (int j = 0; j < columns; ++j) {
      out[j] = j >= dims.value_dim ? 0.0 : work.memory ? value[j] - read[j] : value[j];
    }
  }
}

inline bool absorb(const Absorb& work, void* block) {
  const Dims& dims = work.dims;
  const int rows = work.end - work.begin;
  const int columns = padded(dims.value_dim);
  Workspace workspace(block);
  double* keys = workspace.take<double>(size_t(kStateRows) * kTokens);  // sigma(K) of this block, transposed
  double* product = workspace.take<double>(size_t(kStateRows) * columns);
  double* sum = workspace.take<double>(size_t(kStateRows) * columns);
  double* mass = workspace.take<double>(kStateRows);
  for (int64_t i = 0; i < int64_t(rows) * columns; ++i) sum[i] = 0;
  for (int row = 0; row < rows; ++row) mass[row] = 0;

  for (int64_t first = 0; first < work.segment.length; first += kTokens) {
    const int64_t rest = work.segment.length - first;
    const int tokens = rest < kTokens ? int(rest) : kTokens;
    for (int token = 0; token < tokens; token += kPanel) {
      const int width = panel_width(work.segment, first + token);
      for (int row = 0; row < rows; ++row) {
        double* lane = keys + row * kTokens + token;
        decode(dims.element, work.segment.keys,
               (first + token) * dims.head_dim + int64_t(work.begin + row) * width, width, lane);
        for (int key = width; key < kPanel; ++key) lane[key] = -100;  // no key: sigma is 0, as sigma(0) is not
        apply_sigma(lane, kPanel);
        for (int key = 0; key < kPanel; ++key) mass[row] += lane[key];
      }
    }
    matmul(rows, columns, tokens, keys, kTokens, work.residual + first * columns, columns, product, columns);
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
        (work.memory ? work.memory->normalizer[work.begin + row] : 0.0) + mass[row];
  }
  return finite;
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

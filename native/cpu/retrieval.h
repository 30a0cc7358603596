// Reading the memory: A_mem = sigma(q) M / (sigma(q) . z), for queries (retrieval) and for keys (the delta rule).
// All of it in float64: sigma goes down to e^-87 and so may M and z, hence products to e^-174. Float64 holds them;
// float32 would need each row of sigma scaled by its largest element first (the quotient does not change).
#pragma once

#include "cpu/elements.h"
#include "cpu/matmul.h"
#include "cpu/vector_math.h"
#include "cpu/workspace.h"

namespace infini::cpu::INFINI_SIMD_LEVEL {

inline int64_t row_offset(const Rows& rows, int dim, int64_t row) {
  return row / rows.group * rows.token_stride + row % rows.group * dim;
}

// sigma of `count` values in place; the array has room up to the next multiple of 16.
inline void apply_sigma(double* values, int count) {
  for (int i = 0; i < count; i += kLanes<double>) store(values + i, sigma(load<double>(values + i)));
}

// M with rows of padded(valueDim): itself where that is no different, else a copy.
inline const float* padded_matrix(const Dims& dims, const float* matrix, float* copy) {
  const int columns = padded(dims.value_dim);
  if (columns == dims.value_dim) return matrix;
  for (int i = 0; i < dims.head_dim; ++i) {
    for (int j = 0; j < columns; ++j) {
      copy[i * columns + j] = j < dims.value_dim ? matrix[int64_t(i) * dims.value_dim + j] : 0.0f;
    }
  }
  return copy;
}

// features: [rows][stride = padded(headDim)] of sigma, zero beyond headDim; result: [rows][padded(valueDim)]. Exactly zero where every product
// sigma_i z_i is zero: nothing was ever stored where this row looks.
inline void read_memory(const Dims& dims, const Memory& memory, int rows, const double* features, int64_t stride,
                        double* result, Workspace workspace) {
  const int columns = padded(dims.value_dim);
  float* copy = workspace.take<float>(size_t(dims.head_dim) * columns);
  matmul(rows, columns, dims.head_dim, features, stride, padded_matrix(dims, memory.matrix, copy), columns, result,
         columns);
  double* normalizer = workspace.take<double>(size_t(stride));
  for (int i = 0; i < stride; ++i) normalizer[i] = i < dims.head_dim ? memory.normalizer[i] : 0.0;
  for (int row = 0; row < rows; ++row) {
    Doubles products{};
    for (int i = 0; i < stride; i += kLanes<double>) {
      products += load<double>(features + row * stride + i) * load<double>(normalizer + i);
    }
    const double weight = reduce(products, [](double a, double b) { return a + b; });
    const double share = weight > 0 ? 1.0 / weight : 0.0;
    double* out = result + int64_t(row) * columns;
    for (int j = 0; j < columns; j += kLanes<double>) store(out + j, load<double>(out + j) * share);
  }
}

inline int64_t retrieve(const Retrieve& work, void* block) {
  const Dims& dims = work.dims;
  const int rows = int(work.queries.end - work.queries.begin);
  const int stride = padded(dims.head_dim), columns = padded(dims.value_dim);
  Workspace workspace(block);
  double* features = workspace.take<double>(size_t(kTileRows) * stride);
  double* result = workspace.take<double>(size_t(kTileRows) * columns);

  for (int row = 0; row < rows && work.memory; ++row) {
    double* feature = features + int64_t(row) * stride;
    decode(dims.element, work.queries.data, row_offset(work.queries, dims.head_dim, work.queries.begin + row),
           dims.head_dim, feature);
    for (int i = dims.head_dim; i < stride; ++i) feature[i] = 0;
    apply_sigma(feature, dims.head_dim);
  }
  if (work.memory) {
    read_memory(dims, *work.memory, rows, features, stride, result, workspace);
  } else {
    for (int64_t i = 0; i < int64_t(rows) * columns; ++i) result[i] = 0;
  }

  int64_t overflow = -1;
  for (int row = 0; row < rows; ++row) {
    const Rows place{nullptr, work.output_stride, work.queries.group, 0, 0};
    const int64_t at = row_offset(place, dims.value_dim, work.queries.begin + row);
    if (!encode(dims.element, result + int64_t(row) * columns, dims.value_dim, work.output, at) && overflow < 0) {
      overflow = (work.queries.begin + row) / work.queries.group;
    }
  }
  return overflow;
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

// Reading the memory: A_mem = sigma(q) M / (sigma(q) . z), for queries (retrieval) and for keys (the delta rule).
//
// sigma goes down to e^-87 and so may M and z, hence products to e^-174: beyond float32. So every kernel here is a template
// of the type it computes in. float serves the numbers that models make, and says of each row whether it may be
// trusted; double holds everything, and does the rows that may not. Whether a row is trusted follows from that row and
// from what it sees alone, never from its neighbours: so does its result.
#pragma once

#include "cpu/elements.h"
#include "cpu/matmul.h"
#include "cpu/tiles.h"
#include "cpu/vector_math.h"
#include "cpu/workspace.h"

namespace infini::cpu::INFINI_SIMD_LEVEL {

// What float32 multiplies and adds without loss: features that no clamp has touched, and a row's sigma . z and result such
// that every product that matters is a normal number.
constexpr float kSmallestFeature = 0x1p-80f, kSmallestResult = 0x1p-100f, kLargest = 0x1p60f;
inline bool is_ordinary_weight(double weight) { return weight >= 0x1p-30 && weight <= 0x1p100; }

template <class T> inline T smallest_of(const T* values, int count) {
  Vector<T> low = broadcast(T(kLargest));
  int i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) low = minimum(low, load<T>(values + i));
  T smallest = reduce(low, [](T a, T b) { return a < b ? a : b; });
  for (; i < count; ++i) smallest = values[i] < smallest ? values[i] : smallest;
  return smallest;
}

template <class T> inline T largest_of(const T* values, int count) {  // a multiple of 16, none negative
  Vector<T> high{};
  for (int i = 0; i < count; i += kLanes<T>) high = maximum(high, load<T>(values + i));
  return reduce(high, [](T a, T b) { return a > b ? a : b; });
}

inline int64_t row_offset(const Rows& rows, int dim, int64_t row) {
  return row / rows.group * rows.token_stride + row % rows.group * dim;
}

// sigma of `count` values in place; the array has room up to the next multiple of 16.
template <class T> inline void apply_sigma(T* values, int count) {
  for (int i = 0; i < count; i += kLanes<T>) store(values + i, sigma(load<T>(values + i)));
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

// features: [rows][stride = padded(headDim)] of sigma, zero beyond headDim; result: [rows][padded(valueDim)]. Exactly zero
// where every product sigma_i z_i is zero: nothing was ever stored where this row looks. Clears trusted[row] of rows that
// float32 may not do; those that it must not even finish show as an infinity or NaN in their result.
template <class T>
inline void read_memory(const Dims& dims, const Memory& memory, int rows, const T* features, int64_t stride, T* result,
                        bool* trusted, Workspace workspace, const Packing& packing) {
  const int columns = padded(dims.value_dim);
  float* copy = workspace.take<float>(size_t(dims.head_dim) * columns);
  multiply(packing, rows, columns, dims.head_dim, Left<T>{features, stride},
           Right<float>{padded_matrix(dims, memory.matrix, copy), columns}, result, columns);
  double* normalizer = workspace.take<double>(size_t(stride));
  for (int i = 0; i < stride; ++i) normalizer[i] = i < dims.head_dim ? memory.normalizer[i] : 0.0;
  for (int row = 0; row < rows; ++row) {
    Doubles products{};
    for (int i = 0; i < stride; i += kLanes<double>) {
      products += load<double>(features + row * stride + i) * load<double>(normalizer + i);
    }
    const double weight = reduce(products, [](double a, double b) { return a + b; });
    const T share = weight > 0 ? T(1.0 / weight) : T(0);
    T* out = result + int64_t(row) * columns;
    Vector<T> largest{};
    for (int j = 0; j < columns; j += kLanes<T>) {
      const Vector<T> sum = load<T>(out + j);
      largest = maximum(largest, maximum(sum, -sum));
      store(out + j, sum * share);
    }
    if constexpr (!kExact<T>) {
      const T most = reduce(largest, [](T a, T b) { return a > b ? a : b; });
      if (!is_ordinary_weight(weight) || smallest_of(features + row * stride, dims.head_dim) < kSmallestFeature ||
          most < (packing.left ? kSmallestTiledResult : kSmallestResult) ||
          (packing.left && largest_of(features + row * stride, stride) > kLargestTiled)) {
        trusted[row] = false;
      }
    }
  }
}

// Calls rows(T(), work) for the whole tile in float32, then in float64 for each run of rows that float32 may not do.
// Returns the first token whose result does not fit, or -1.
template <class Work, class Body> inline int64_t in_float_then_double(const Work& work, bool float_at_all, Body rows) {
  const int count = int(work.queries.end - work.queries.begin);
  bool trusted[kTileRows];
  for (int row = 0; row < count; ++row) trusted[row] = float_at_all;
  if (float_at_all) rows(float(), work, trusted);
  int64_t overflow = -1;
  for (int first = 0; first < count; ++first) {
    if (trusted[first]) continue;
    int end = first + 1;
    while (end < count && !trusted[end]) ++end;
    Work rest = work;
    rest.queries.end = work.queries.begin + end;
    rest.queries.begin = work.queries.begin + first;
    const int64_t token = rows(double(), rest, nullptr);
    if (overflow < 0) overflow = token;
    first = end;
  }
  return overflow;
}

template <class T> inline int64_t retrieve_rows(const Retrieve& work, void* block, bool* trusted) {
  const Dims& dims = work.dims;
  const int rows = int(work.queries.end - work.queries.begin);
  const int stride = padded(dims.head_dim), columns = padded(dims.value_dim);
  Workspace workspace(block);
  T* features = workspace.take<T>(size_t(kTileRows) * stride);
  T* result = workspace.take<T>(size_t(kTileRows) * columns);
  const bool on_tiles = tiled<T>(dims.element);
  const TileScope scope(on_tiles);
  const Packing packing = take_packing(workspace, on_tiles, stride, columns);

  for (int row = 0; row < rows && work.memory; ++row) {
    T* feature = features + int64_t(row) * stride;
    decode(dims.element, work.queries.data, row_offset(work.queries, dims.head_dim, work.queries.begin + row),
           dims.head_dim, feature);
    apply_sigma(feature, dims.head_dim);
    for (int i = dims.head_dim; i < stride; ++i) feature[i] = 0;
  }
  if (work.memory) {
    read_memory(dims, *work.memory, rows, features, stride, result, trusted, workspace, packing);
  } else {
    for (int64_t i = 0; i < int64_t(rows) * columns; ++i) result[i] = 0;
  }

  int64_t overflow = -1;
  for (int row = 0; row < rows; ++row) {
    const Rows place{nullptr, work.output_stride, work.queries.group, 0, 0};
    const int64_t at = row_offset(place, dims.value_dim, work.queries.begin + row);
    if (encode(dims.element, result + int64_t(row) * columns, dims.value_dim, work.output, at)) continue;
    if (!kExact<T>) trusted[row] = false;
    if (overflow < 0) overflow = (work.queries.begin + row) / work.queries.group;
  }
  return overflow;
}

inline int64_t retrieve(const Retrieve& work, void* block) {
  return in_float_then_double(work, true, [&](auto type, const Retrieve& rows, bool* trusted) {
    return retrieve_rows<decltype(type)>(rows, block, trusted);
  });
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

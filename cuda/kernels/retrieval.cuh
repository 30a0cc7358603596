// Reading the memory for a tile of query rows: products of their features (kernels/features.cuh) with M.
//
// A warp owns strips of 16 rows of the query tile; of strip s a lane looks after rows 16 s + lane / 4 and 8 below. The
// features of 16 rows and 16 columns come to be in registers, as the A operand of the products. M comes from the
// snapshot of a piece (Workspace), a slice of rows at a time through shared memory, as the B operand. For float16
// streams features and M are sums of two bfloat16, and the product of the two small parts is left out.
#pragma once

#include <cmath>
#include <type_traits>

#include "kernels/features.cuh"
#include "kernels/fragments.cuh"
#include "launch.h"

namespace infini::cuda {

// The memory before a piece, as one key/value head has it.
template <class T> struct Snapshot {
  using Element = std::conditional_t<std::is_same_v<T, float>, float, bfloat16>;
  static constexpr int kTerms = std::is_same_v<T, float16> ? 2 : 1;

  const float* normalizer;  // z: [rows]
  const Element* matrix;    // M: [kTerms][rows][columns]
  int rows, columns;        // padded head_dim, padded value_dim
};

template <class T>
__device__ __forceinline__ Snapshot<T> snapshot_of(const Shape& shape, const Workspace& workspace, int piece,
                                                   int kv_head) {
  using Element = typename Snapshot<T>::Element;
  const int rows = padded(shape.head_dim), columns = padded(shape.value_dim);
  const long long place = (long long)piece * shape.kv_heads + kv_head;
  const Element* matrix = static_cast<const Element*>(workspace.snapshots);
  return {workspace.normalizers + place * rows, matrix + place * Snapshot<T>::kTerms * rows * columns, rows, columns};
}

// A slice of M in a tile of kRows rows: the same kRows / kTerms rows of every term, one term after the other.
template <class T, int kRows> __host__ __device__ constexpr int slice_rows() { return kRows / Snapshot<T>::kTerms; }

template <int kThreads, int kRows, class T, int kDim>
__device__ __forceinline__ void load_slice(const Tile<typename Snapshot<T>::Element, kDim>& tile,
                                           const Snapshot<T>& memory, int first) {
  constexpr int kSlice = slice_rows<T, kRows>();
  const auto feature_of = [&](int row) { return first + (kSlice == kRows ? row : row % kSlice); };
  load_rows<kThreads>(tile, kRows, memory.columns, [&](int row) { return feature_of(row) < memory.rows; },
                      [&](int row) {
                        const int term = kSlice == kRows ? 0 : row / kSlice;
                        return memory.matrix + (term * memory.rows + feature_of(row)) * memory.columns;
                      });
}

// sigma(q) M / (sigma(q) . z) of a row is rest * (features M): features are sigma(q) times scale and then times share
// (at once could overflow), powers of two both. So bfloat16 features are rounded once, and their mass is that of what
// they were rounded to: the result is still a mean of what is stored, under weights that are a little off.
template <int kStrips> struct RowWeights {
  float scale[kStrips][2], share[kStrips][2], rest[kStrips][2];
};

// The element where it meets something stored, else minus infinity, whose sigma is 0.
__device__ __forceinline__ float meeting(float x, float normalizer) {
  return x < (normalizer > 0.0f ? -87.0f : INFINITY) ? -INFINITY : x;
}

// sigma as exact as its use: features of 16-bit streams are rounded to a bfloat16 or two. NaN is not kept.
template <class T> __device__ __forceinline__ float feature_sigma(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return sigma(x);
  } else {
    return ptx::exp2_approx(fminf(x * 1.44269504f, 0.0f)) + fmaxf(x, 0.0f);
  }
}

// The element's part in the mass, before z.
template <class T> __device__ __forceinline__ float scaled_feature(float x, float scale) {
  const float feature = feature_sigma<T>(x) * scale;
  return std::is_same_v<T, bfloat16> ? to_float(from_float<bfloat16>(feature)) : feature;
}

// Reads 16 columns of the warp's rows: visit(strip, i, x, z) for the element at each place i of Fragments<T>::A, after
// `meeting`, and its column's z.
template <int kStrips, class T, int kDim, class Visit>
__device__ __forceinline__ void visit_elements(const Tile<T, kDim>& query, int row, int column, const float* normalizer,
                                               Visit visit) {
  using Operand = Fragments<T>;
  float z[Operand::kElements];
#pragma unroll
  for (int i = 0; i < Operand::kElements; ++i) z[i] = __ldg(normalizer + column + Operand::column(i));
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
    typename Operand::A a;
    Operand::load_a(a, query, row + 16 * strip, column);
#pragma unroll
    for (int i = 0; i < Operand::kElements; ++i) visit(strip, i, meeting(Operand::get(a, i), z[i]), z[i]);
  }
}

// The four lanes of a row agree on a sum or a maximum.
template <class Combine> __device__ __forceinline__ float across_row(float x, Combine combine) {
  x = combine(x, __shfl_xor_sync(~0u, x, 1));
  return combine(x, __shfl_xor_sync(~0u, x, 2));
}

// `gate` becomes a factor of what is read.
template <int kStrips, class T, int kDim>
__device__ __forceinline__ RowWeights<kStrips> weigh_rows(const Tile<T, kDim>& query, int row,
                                                          const Snapshot<T>& memory, float gate) {
  using Operand = Fragments<T>;
  float largest[kStrips][2], mass[kStrips][2];
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
    largest[strip][0] = largest[strip][1] = -INFINITY;
    mass[strip][0] = mass[strip][1] = 0.0f;
  }
#pragma unroll 2
  for (int column = 0; column < memory.rows; column += 16) {
    visit_elements<kStrips>(query, row, column, memory.normalizer, [&](int strip, int i, float x, float) {
      float& most = largest[strip][Operand::row_half(i)];
      most = fmaxf(most, x);
    });
  }
  RowWeights<kStrips> weights;
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float most = across_row(largest[strip][half], [](float a, float b) { return fmaxf(a, b); });
      weights.scale[strip][half] = row_scale(sigma(most));
    }
  }
#pragma unroll 2
  for (int column = 0; column < memory.rows; column += 16) {
    visit_elements<kStrips>(query, row, column, memory.normalizer, [&](int strip, int i, float x, float z) {
      const int half = Operand::row_half(i);
      mass[strip][half] = fmaf(scaled_feature<T>(x, weights.scale[strip][half]), z, mass[strip][half]);
    });
  }
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = across_row(mass[strip][half], [](float a, float b) { return a + b; });
      const uint32_t bits = __float_as_uint(gate * row_share(sum));
      weights.share[strip][half] = __uint_as_float(bits & 0x7f800000u);
      weights.rest[strip][half] = __uint_as_float((bits & 0x007fffffu) | 0x3f800000u);
    }
  }
  return weights;
}

// acc += features times the slice of M that begins at row `first`. Rows of acc are in units of their `rest`.
template <int kStrips, int kRows, class T, int kDim>
__device__ __forceinline__ void read_slice(float (&acc)[kStrips][kDim / 8][4], const Tile<T, kDim>& query, int row,
                                           const Tile<typename Snapshot<T>::Element, kDim>& slice, int first,
                                           const Snapshot<T>& memory, const RowWeights<kStrips>& weights) {
  using Operand = Fragments<T>;
  using Product = Fragments<typename Snapshot<T>::Element>;
  constexpr int kTerms = Snapshot<T>::kTerms, kSlice = slice_rows<T, kRows>();
  const int rows = memory.rows - first < kSlice ? memory.rows - first : kSlice;
#pragma unroll 1
  for (int k = 0; k < rows; k += 16) {
    float features[kStrips][8];
    visit_elements<kStrips>(query, row, first + k, memory.normalizer, [&](int strip, int i, float x, float) {
      const int half = Operand::row_half(i);
      features[strip][i] = feature_sigma<T>(x) * weights.scale[strip][half] * weights.share[strip][half];
    });
    typename Product::A a[kStrips][kTerms];
#pragma unroll
    for (int strip = 0; strip < kStrips; ++strip) {
      if constexpr (kTerms == 2) {
        float high[8], low[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const Bfloat16Pair pair = split(features[strip][i]);
          high[i] = to_float(pair.high);
          low[i] = features[strip][i] - high[i];
        }
        Product::set(a[strip][0], high);
        Product::set(a[strip][1], low);
      } else {
        Product::set(a[strip][0], features[strip]);
      }
    }
#pragma unroll
    for (int n = 0; n < kDim; n += 16) {
      typename Product::B b[2];
      Product::load_b_transposed(b, slice, k, n);
#pragma unroll
      for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
        for (int term = 0; term < kTerms; ++term) {
          Product::multiply(acc[strip][n / 8], a[strip][term], b[0]);
          Product::multiply(acc[strip][n / 8 + 1], a[strip][term], b[1]);
        }
      }
      if constexpr (kTerms == 2) {
        Product::load_b_transposed(b, slice, kSlice + k, n);
#pragma unroll
        for (int strip = 0; strip < kStrips; ++strip) {
          Product::multiply(acc[strip][n / 8], a[strip][0], b[0]);
          Product::multiply(acc[strip][n / 8 + 1], a[strip][0], b[1]);
        }
      }
    }
  }
}

}  // namespace infini::cuda

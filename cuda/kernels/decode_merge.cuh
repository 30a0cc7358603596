// The end of decoding: from the sums of warps to those of a split, from those of all splits to the outputs.
#pragma once

#include "kernels/decode_block.cuh"
#include "kernels/features.cuh"

namespace infini::cuda::decoding {

// What the warps of a block have, relative to the highest of their tops, to [rows][value_dim] in global memory; of a
// split of positions top and mass to stats[row * key splits].
__device__ __forceinline__ void write_sums(const Block& block, const Sums& sums, float* to, float2* stats) {
  SHARED_VARIABLE(tops, float[kWarps][DecodeTile::kRows]);
  SHARED_VARIABLE(masses, float[kWarps][DecodeTile::kRows]);
  const int columns = block.shape.value_dim, width = padded(columns), part = block.part();
  float* const staged = reinterpret_cast<float*>(block.staged);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = (lane_id() >> 2) + 8 * half;
    if (row >= block.rows) break;
    float* const mine = staged + (part * block.rows + row) * width + 2 * (lane_id() & 3);
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
      const int column = block.column() + 8 * n;
      if (column >= columns) break;
      *reinterpret_cast<float2*>(mine + column) = {sums.columns[n][2 * half], sums.columns[n][2 * half + 1]};
    }
    if (block.column() == 0 && (lane_id() & 3) == 0) {
      tops[part][row] = sums.top[half];
      masses[part][row] = sums.mass[half];
    }
  }
  __syncthreads();
  for (int row = 0; row < block.rows; ++row) {
    float top = tops[0][row];
    for (int i = 1; i < block.tile.parts; ++i) top = fmaxf(top, tops[i][row]);
    for (int column = int(threadIdx.x); column < columns; column += kThreads) {
      float sum = 0.0f, mass = 0.0f;
      for (int i = 0; i < block.tile.parts; ++i) {
        const float weight = relative_weight(tops[i][row], top);
        sum = fmaf(staged[(i * block.rows + row) * width + column], weight, sum);
        mass = fmaf(masses[i][row], weight, mass);
      }
      to[row * columns + column] = sum;
      if (stats != nullptr && column == 0) stats[row * block.tile.key_splits] = {top, mass};
    }
  }
}

// Weights times rows once more: of a row's key splits each counts gate exp(its top - top) / mass, those of M the rest.
template <class T>
__device__ __forceinline__ void merge(const Block& block, int key_splits, const float2* stats, const float* sums) {
  const Shape& shape = block.shape;
  const Job& job = block.job;
  const int memory_splits = block.tile.memory_splits, splits = block.tile.splits;
  float* const weights_of_rows = reinterpret_cast<float*>(block.staged);
  for (int row = warp_id(); row < block.rows; row += kWarps) {
    const float2 gate = shape.gate[block.head(row)];
    const float2* row_stats = stats + row * block.tile.key_splits;
    float* const weights = weights_of_rows + row * splits;
    float top = kLowest, mass = 0.0f;
    for (int i = lane_id(); i < key_splits; i += 32) top = fmaxf(top, row_stats[i].x);
    top = warp_max(top);
    for (int i = lane_id(); i < key_splits; i += 32) {
      mass = fmaf(row_stats[i].y, relative_weight(row_stats[i].x, top), mass);
    }
    const float local = (job.absorbed || !shape.local_when_empty ? gate.y : 1.0f) / warp_sum(mass);
    for (int i = lane_id(); i < key_splits; i += 32) {
      weights[memory_splits + i] = relative_weight(row_stats[i].x, top) * local;
    }
    for (int i = lane_id(); i < memory_splits; i += 32) weights[i] = gate.x;
  }
  __syncthreads();

  const int first = job.absorbed ? 0 : memory_splits, end = memory_splits + key_splits;
  const int stride = block.tile.rows * shape.value_dim;
  for (int row = 0; row < block.rows; ++row) {
    const float* weights = weights_of_rows + row * splits;
    for (int column = int(threadIdx.x); column < shape.value_dim; column += kThreads) {
      const float* part = sums + row * shape.value_dim + column;
      float sum = 0.0f;
#pragma unroll 8
      for (int i = first; i < end; ++i) sum = fmaf(weights[i], part[(long long)i * stride], sum);
      const T rounded = from_float<T>(sum);
      static_cast<T*>(job.output)[block.tensor_row(row) * shape.value_dim + column] = rounded;
      if (!is_finite(to_float(rounded))) note_failure(job.failure, job.first_token + block.token(row), kOutput);
    }
  }
}

}  // namespace infini::cuda::decoding

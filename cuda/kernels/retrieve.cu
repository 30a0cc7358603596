// What the memory alone retrieves: A_mem = sigma(q) M / (sigma(q) . z) for every query head of every token of a job.
//
// The memory is the one that is published before the job's only piece; where nothing was absorbed the result is 0. A
// block computes one tile of rows (QueryTile, as many as the forward kernel's) of one query head; the slices of M come
// through a ring of three buffers in shared memory. No logit meets the queries here, so the kernel itself looks for
// what is not finite in them.
#include <algorithm>

#include "dispatch.h"
#include "kernels/outputs.cuh"
#include "kernels/retrieval.cuh"
#include "tiles.h"

namespace infini::cuda {
namespace {

// 0, or NaN where an element of the warp's rows is not finite; of strip s rows lane / 4 (half 0) and 8 below (half 1).
template <int kStrips, class T, int kDim>
__device__ __forceinline__ void poison_of(float (&poison)[kStrips][2], const Tile<T, kDim>& query, int row, int columns) {
  using Operand = Fragments<T>;
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
    poison[strip][0] = poison[strip][1] = 0.0f;
#pragma unroll 2
    for (int column = 0; column < columns; column += 16) {
      typename Operand::A a;
      Operand::load_a(a, query, row + 16 * strip, column);
#pragma unroll
      for (int i = 0; i < Operand::kElements; ++i) {
        float& sick = poison[strip][Operand::row_half(i)];
        sick = poisoned(sick, Operand::get(a, i));
      }
    }
  }
}

template <class T, int kDim>
__global__ void __launch_bounds__(forward_tile(kDim, sizeof(T)).threads(), forward_tile(kDim, sizeof(T)).blocks)
    retrieve(const __grid_constant__ Shape shape, const Job* jobs, const QueryTile* tiles,
             const __grid_constant__ Workspace workspace) {
  constexpr ForwardTile kTile = forward_tile(kDim, sizeof(T));
  constexpr int kThreads = kTile.threads(), kRows = kTile.rows, kStrips = kTile.strips, kKeys = kTile.keys;
  constexpr int kSlice = slice_rows<T, kKeys>();
  using Shared = Tile<T, kDim>;
  using Slice = Tile<typename Snapshot<T>::Element, kDim>;

  const int head = int(blockIdx.x) % shape.heads;
  const QueryTile tile = tiles[int(blockIdx.x) / shape.heads];
  const Job& job = jobs[tile.job];
  const int token = tile.tile * kRows, rows = min(kRows, job.tokens - token);
  const Snapshot<T> memory = snapshot_of<T>(shape, workspace, job.first_piece, head / (shape.heads / shape.kv_heads));
  const bool remembers = job.absorbed;
  const int row = int(threadIdx.x / 32) * 16 * kStrips;  // the warp's first

  DYNAMIC_SHARED(shared);
  const Shared query{shared};
  const auto slice_at = [&](int first) {
    return Slice{shared + Shared::bytes(kRows) + first / kSlice % kTile.buffers * Shared::bytes(kKeys)};
  };
  const auto load_memory = [&](int first) {
    if (remembers && first < memory.rows) load_slice<kThreads, kKeys>(slice_at(first), memory, first);
    ptx::cp_async_commit();
  };
  const T* queries = static_cast<const T*>(job.query) + ((long long)token * shape.heads + head) * shape.head_dim;
  load_rows<kThreads>(query, kRows, shape.head_dim, [&](int i) { return i < rows; },
                      [&](int i) { return queries + (long long)i * shape.heads * shape.head_dim; });
  ptx::cp_async_commit();
  load_memory(0);
  load_memory(kSlice);
  ptx::cp_async_wait<2>();
  __syncthreads();

  float acc[kStrips][kDim / 8][4], poison[kStrips][2];
  RowWeights<kStrips> weights{};
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) clear(acc[strip][n]);
  }
  poison_of(poison, query, row, padded(shape.head_dim));
  if (remembers) {
    weights = weigh_rows<kStrips>(query, row, memory, 1.0f);
#pragma unroll 1
    for (int first = 0; first < memory.rows; first += kSlice) {
      ptx::cp_async_wait<1>();
      __syncthreads();
      load_memory(first + 2 * kSlice);
      read_slice<kStrips, kKeys>(acc, query, row, slice_at(first), first, memory, weights);
    }
  }

#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = row + 16 * strip + 8 * half + lane_id() / 4;
      if (at < rows && !(poison[strip][half] == 0.0f)) note_failure(job.failure, job.first_token + token + at, kOutput);
    }
  }
  T* output = static_cast<T*>(job.output) + ((long long)token * shape.heads + head) * shape.value_dim;
  write_rows(acc, weights.rest, query, row, rows - row, shape.value_dim, job.failure, job.first_token + token,
             [&](int i) { return output + (long long)i * shape.heads * shape.value_dim; });
}

// The bucket that holds both dimensions; there is none for 64, which would not be much faster.
int retrieve_dim(const Shape& shape) { return std::max({shape.head_dim, shape.value_dim, 128}); }

}  // namespace

int retrieve_tile_rows(const Shape& shape) {
  return dispatch(shape.element, retrieve_dim(shape),
                  [](auto type, auto dim) { return forward_tile(dim, sizeof(typename decltype(type)::type)).rows; });
}

cudaError_t launch_retrieve(const Shape& shape, const Job* jobs, const QueryTile* tiles, int tile_count,
                            const Workspace& workspace, cudaStream_t stream) {
  if (tile_count == 0) return cudaSuccess;
  return dispatch(shape.element, retrieve_dim(shape), [&](auto type, auto bucket) {
    using T = typename decltype(type)::type;
    constexpr int kDim = bucket;
    constexpr ForwardTile kTile = forward_tile(kDim, sizeof(T));
    return launch(retrieve<T, kDim>, dim3(unsigned(tile_count) * unsigned(shape.heads)), dim3(kTile.threads()),
                  kTile.shared_bytes(kDim, sizeof(T)), stream, shape, jobs, tiles, workspace);
  });
}

}  // namespace infini::cuda

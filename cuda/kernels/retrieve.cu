// What the memory alone retrieves: A_mem = sigma(q) M / (sigma(q) . z) for every query head of every token of a job.
//
//   in   job.query [tokens][heads][head_dim]; snapshots and normalizers of the job's only piece (chain.cu)
//   out  job.output [tokens][heads][value_dim], in the stream's type; job.failure
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

// What a block does: in shared memory, read where it is needed, so that registers are left to accumulators.
template <class T> struct Work {
  const T* query;  // of the tile's first row
  T* output;
  int rows;  // that exist
  bool remembers;
  Snapshot<T> memory;
  unsigned long long* failure;
  long long first_token;
};

template <class T, int kRows>
__device__ __forceinline__ Work<T> work_of(int block, const Shape& shape, const Job* jobs, const QueryTile* tiles,
                                           const Workspace& workspace) {
  const int head = block % shape.heads;
  const QueryTile tile = tiles[block / shape.heads];
  const Job& job = jobs[tile.job];
  const int token = tile.tile * kRows;
  const long long place = (long long)token * shape.heads + head;
  return {static_cast<const T*>(job.query) + place * shape.head_dim,
          static_cast<T*>(job.output) + place * shape.value_dim,
          min(kRows, job.tokens - token),
          job.absorbed != 0,
          snapshot_of<T>(shape, workspace, job.first_piece, head / (shape.heads / shape.kv_heads)),
          job.failure,
          job.first_token + token};
}

// Notes the warp's rows that hold an element that is not finite.
template <int kStrips, class T, int kDim>
__device__ __forceinline__ void check_queries(const Tile<T, kDim>& query, int row, int rows, int columns,
                                              unsigned long long* failure, long long first_token) {
  using Operand = Fragments<T>;
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
    float poison[2] = {0.0f, 0.0f};
#pragma unroll 2
    for (int column = 0; column < columns; column += 16) {
      typename Operand::A a;
      Operand::load_a(a, query, row + 16 * strip, column);
#pragma unroll
      for (int i = 0; i < Operand::kElements; ++i) {
        poison[Operand::row_half(i)] = poisoned(poison[Operand::row_half(i)], Operand::get(a, i));
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = row + 16 * strip + 8 * half + lane_id() / 4;
      if (at < rows && !(poison[half] == 0.0f)) note_failure(failure, first_token + at, kOutput);
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
  static_assert(kTile.buffers == 3);
  using Shared = Tile<T, kDim>;
  using Slice = Tile<typename Snapshot<T>::Element, kDim>;

  DYNAMIC_SHARED(shared);
  SHARED_VARIABLE(work, Work<T>);
  if (threadIdx.x == 0) work = work_of<T, kRows>(int(blockIdx.x), shape, jobs, tiles, workspace);
  __syncthreads();

  const int row = int(threadIdx.x / 32) * 16 * kStrips;  // the warp's first
  const Shared query{shared};
  const auto slice_at = [&](int first) {
    return Slice{shared + Shared::bytes(kRows) + first / kSlice % kTile.buffers * Shared::bytes(kKeys)};
  };
  const auto load_memory = [&](int first) {
    const Snapshot<T> memory = work.memory;
    if (work.remembers && first < memory.rows) load_slice<kThreads, kKeys>(slice_at(first), memory, first);
    ptx::cp_async_commit();
  };
  const auto load_queries = [&] {
    const T* from = work.query;
    const int rows = work.rows, stride = shape.heads * shape.head_dim;
    load_rows<kThreads>(query, kRows, shape.head_dim, [&](int i) { return i < rows; },
                        [&](int i) { return from + (long long)i * stride; });
    ptx::cp_async_commit();
  };
  load_queries();
  load_memory(0);
  load_memory(kSlice);
  ptx::cp_async_wait<2>();
  __syncthreads();

  check_queries<kStrips>(query, row, work.rows, padded(shape.head_dim), work.failure, work.first_token);
  float acc[kStrips][kDim / 8][4];
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) clear(acc[strip][n]);
  }
  RowWeights<kStrips> weights{};
  if (work.remembers) {
    weights = weigh_rows<kStrips>(query, row, work.memory, 1.0f);
#pragma unroll 1
    for (int first = 0; first < work.memory.rows; first += kSlice) {
      ptx::cp_async_wait<1>();
      __syncthreads();
      load_memory(first + 2 * kSlice);
      read_slice<kStrips, kKeys>(acc, query, row, slice_at(first), first, work.memory, weights);
    }
  }

  T* output = work.output;
  const int stride = shape.heads * shape.value_dim;
  write_rows(acc, weights.rest, query, row, work.rows - row, shape.value_dim, work.failure, work.first_token,
             [&](int i) { return output + (long long)i * stride; });
}

// body(std::type_identity<T>, std::integral_constant<int, kDim>). 64 columns have no instance of their own.
template <class Body> auto dispatch_retrieve(const Shape& shape, Body body) {
  return dispatch_element(shape.element, [&](auto type) {
    if (std::max(shape.head_dim, shape.value_dim) <= 128) return body(type, std::integral_constant<int, 128>());
    return body(type, std::integral_constant<int, 256>());
  });
}

}  // namespace

int retrieve_tile_rows(const Shape& shape) {
  return dispatch_retrieve(shape, [](auto type, auto dim) {
    return forward_tile(dim, sizeof(typename decltype(type)::type)).rows;
  });
}

cudaError_t launch_retrieve(const Shape& shape, const Job* jobs, const QueryTile* tiles, int tile_count,
                            const Workspace& workspace, cudaStream_t stream) {
  if (tile_count == 0) return cudaSuccess;
  return dispatch_retrieve(shape, [&](auto type, auto dim) {
    using T = typename decltype(type)::type;
    constexpr int kDim = dim;
    constexpr ForwardTile kTile = forward_tile(kDim, sizeof(T));
    return launch(retrieve<T, kDim>, dim3(unsigned(tile_count) * unsigned(shape.heads)), dim3(kTile.threads()),
                  kTile.shared_bytes(kDim, sizeof(T)), stream, shape, jobs, tiles, workspace);
  });
}

}  // namespace infini::cuda

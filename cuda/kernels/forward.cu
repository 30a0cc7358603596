// Outputs of any number of tokens: causal softmax attention within the segment, what the memory before the segment
// retrieves, and the gate between them, in one pass.
//
//   out = (1 - g) softmax(scale q k^T) v + g sigma(q) M / (sigma(q) . z)      with rope only the first term rotates
//
// A block computes one tile of rows (QueryTile) of one query head; a warp keeps the accumulators of its rows
// [16 kStrips][kDim] in registers from the first key to the output. Tiles of keys and of values, and at the end slices
// of M, come one after the other through a ring of buffers in shared memory (forward_tile says how large): element i is
// in use while i + 1 is arriving and i + 2 is asked for. Keys that no row of the tile sees are never loaded, keys that
// no row of a warp sees are not multiplied, and only where keys and rows meet on the diagonal are scores masked.
#include "dispatch.h"
#include "kernels/outputs.cuh"
#include "kernels/pieces.cuh"
#include "kernels/retrieval.cuh"
#include "kernels/rotary.cuh"
#include "kernels/softmax.cuh"
#include "tiles.h"

namespace infini::cuda {
namespace {

template <int kStrips, int kKeys, class T, int kDim>
__device__ __forceinline__ void score_keys(float (&scores)[kStrips][kKeys / 8][4], const Tile<T, kDim>& query, int row,
                                           const Tile<T, kDim>& keys) {
  using Operand = Fragments<T>;
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) clear(scores[strip][n]);
  }
  [[maybe_unused]] constexpr int kUnroll = sizeof(T) == 4 ? 2 : kDim / 16;
#pragma unroll kUnroll
  for (int k = 0; k < kDim; k += 16) {
    typename Operand::A a[kStrips];
#pragma unroll
    for (int strip = 0; strip < kStrips; ++strip) Operand::load_a(a[strip], query, row + 16 * strip, k);
#pragma unroll
    for (int n = 0; n < kKeys; n += 16) {
      typename Operand::B b[2];
      Operand::load_b(b, keys, n, k);
#pragma unroll
      for (int strip = 0; strip < kStrips; ++strip) {
        Operand::multiply(scores[strip][n / 8], a[strip], b[0]);
        Operand::multiply(scores[strip][n / 8 + 1], a[strip], b[1]);
      }
    }
  }
}

template <int kStrips, int kSteps, class T, int kDim>
__device__ __forceinline__ void add_values(float (&acc)[kStrips][kDim / 8][4],
                                           const typename Fragments<T>::A (&weights)[kStrips][kSteps],
                                           const Tile<T, kDim>& values) {
  using Operand = Fragments<T>;
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
#pragma unroll
    for (int n = 0; n < kDim; n += 16) {
      typename Operand::B b[2];
      Operand::template load_b_transposed<Order::Accumulator>(b, values, 16 * k, n);
#pragma unroll
      for (int strip = 0; strip < kStrips; ++strip) {
        Operand::multiply(acc[strip][n / 8], weights[strip][k], b[0]);
        Operand::multiply(acc[strip][n / 8 + 1], weights[strip][k], b[1]);
      }
    }
  }
}

// What a block does: in shared memory, read where it is needed, so that registers are left to accumulators.
template <class T> struct Work {
  SegmentRows<T> keys, values;
  const T* query;  // of the tile's first row
  T* output;
  int query_stride, output_stride;  // from row to row
  int start;                        // position of the first row within the segment
  int rows;                         // that exist
  bool remembers;                   // something was absorbed before the piece
  Snapshot<T> memory;
  float local_gate, memory_gate;
  Scale scale;
  Failure* failure;
  long long first_token;
};

// Blocks in the order in which they should start: kTogether tiles of the list (they share keys if they are of one
// piece) for one head after the other (heads of one group share them too).
constexpr int kTogether = 16;

constexpr int kWorkBytes = 1024;  // of shared memory, with what aligns the tiles

template <class T, int kRows>
__device__ __forceinline__ Work<T> work_of(int block, const Shape& shape, const Job* jobs, const QueryTile* tiles,
                                           int tile_count, const Workspace& workspace) {
  const int first = block / (kTogether * shape.heads) * kTogether, rest = block - first * shape.heads;
  const int together = min(kTogether, tile_count - first), head = rest / together;
  const int kv_head = head / (shape.heads / shape.kv_heads);
  const QueryTile tile = tiles[first + rest % together];
  const Job& job = jobs[tile.job];
  const Piece piece = piece_of(job, shape, tile.piece);
  const int done = tile.tile * kRows, token = piece.token + done;

  Work<T> work;
  work.keys = key_rows<T>(job, shape, piece, kv_head);
  work.values = value_rows<T>(job, shape, piece, kv_head);
  work.query_stride = shape.heads * shape.head_dim;
  work.output_stride = shape.heads * shape.value_dim;
  work.query = static_cast<const T*>(job.query) + (long long)token * work.query_stride + head * shape.head_dim;
  work.output = static_cast<T*>(job.output) + (long long)token * work.output_stride + head * shape.value_dim;
  work.start = piece.start + done;
  work.rows = min(kRows, piece.count - done);
  work.remembers = job.absorbed || tile.piece > 0;
  work.memory = snapshot_of<T>(shape, workspace, job.first_piece + tile.piece, kv_head);
  work.memory_gate = shape.gate[head].x;
  work.local_gate = work.remembers || !shape.local_when_empty ? shape.gate[head].y : 1.0f;
  work.scale = split_scale<T>(shape.scale);
  work.failure = job.failure;
  work.first_token = job.first_token + token;
  return work;
}

template <class T, int kDim>
__global__ void __launch_bounds__(forward_tile(kDim, sizeof(T)).threads(), forward_tile(kDim, sizeof(T)).blocks)
    forward(const __grid_constant__ Shape shape, const Job* jobs, const QueryTile* tiles, int tile_count,
            const __grid_constant__ Workspace workspace) {
  constexpr ForwardTile kTile = forward_tile(kDim, sizeof(T));
  constexpr int kThreads = kTile.threads(), kRows = kTile.rows, kStrips = kTile.strips, kKeys = kTile.keys;
  static_assert(kTile.buffers == 3 && kTile.shared_bytes(kDim, sizeof(T)) + kWorkBytes <= kSharedLimit);
  using Shared = Tile<T, kDim>;
  using Slice = Tile<typename Snapshot<T>::Element, kDim>;

  DYNAMIC_SHARED(shared);
  SHARED_VARIABLE(work, Work<T>);
  if (threadIdx.x == 0) work = work_of<T, kRows>(int(blockIdx.x), shape, jobs, tiles, tile_count, workspace);
  __syncthreads();

  const Shared query{shared};
  // Of element i of the ring: keys and values of each step by turns, then slices of M.
  const auto buffer = [&](int i) { return shared + Shared::bytes(kRows) + i % kTile.buffers * Shared::bytes(kKeys); };
  const auto load_queries = [&] {
    const T* from = work.query;
    const int rows = work.rows, stride = work.query_stride;
    load_rows<kThreads>(query, kRows, shape.head_dim, [&](int i) { return i < rows; },
                        [&](int i) { return from + (long long)i * stride; });
  };
  const auto load_tile = [&](SegmentRows<T> from, int first, int element) {
    const Shared tile{buffer(element)};
    const int rows = work.start + work.rows - first;  // that some row of the tile sees
    const auto exists = [&](int i) { return i < rows; };
    if (first >= from.open) {  // the fewest instructions for most tiles
      const T* fresh = from(first);
      load_rows<kThreads>(tile, kKeys, from.dim, exists, [&](int i) { return fresh + (long long)i * from.stride; });
    } else {
      load_rows<kThreads>(tile, kKeys, from.dim, exists, [&](int i) { return from(first + i); });
    }
  };
  constexpr int kSlice = slice_rows<T, kKeys>();
  const auto load_memory = [&](int first, int element) {
    const Snapshot<T> memory = work.memory;
    if (work.remembers && first < memory.rows) load_slice<kThreads, kKeys>(Slice{buffer(element)}, memory, first);
  };

  float acc[kStrips][kDim / 8][4];
  Rows<kStrips> state;
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) clear(acc[strip][n]);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      state.top[strip][half] = -INFINITY;
      state.mass[strip][half] = state.lowest[strip][half] = 0.0f;
    }
  }

  load_queries();
  const int half_dim = shape.head_dim / 2;
  const int row = int(threadIdx.x / 32) * 16 * kStrips;  // the warp's first
  int step = -1;                                         // the first only asks for what the next needs
#pragma unroll 1
  for (; step * kKeys < work.start + work.rows; ++step) {
    const int first = step * kKeys, next = first + kKeys;
    const int ahead = work.start + row - first;  // of the first key is the warp's first row
    const bool sees = step >= 0 && row < work.rows && ahead + 16 * kStrips > 0;
    ptx::cp_async_wait<1>();
    __syncthreads();
    if (next < work.start + work.rows) {
      load_tile(work.keys, next, 2 * step + 2);
    } else {
      load_memory(0, 2 * step + 2);
    }
    ptx::cp_async_commit();
    if (step == 0) {
      if (shape.rotary != nullptr) {
        rotate_rows<kThreads>(query, work.rows, shape.head_dim, shape.rotary + work.start * half_dim, work.scale.query);
      } else if (work.scale.query != 1.0f) {
        scale_rows<kThreads>(query, work.rows, work.scale.query);
      }
      __syncthreads();
    }
    if (shape.rotary != nullptr && step >= 0) {
      rotate_rows<kThreads>(Shared{buffer(2 * step)}, min(kKeys, work.start + work.rows - first), shape.head_dim,
                            shape.rotary + first * half_dim);
      __syncthreads();
    }
    typename Fragments<T>::A weights[kStrips][kKeys / 16];
    if (sees) {
      float scores[kStrips][kKeys / 8][4];
      score_keys<kStrips, kKeys>(scores, query, row, Shared{buffer(2 * step)});
      if (ahead < kKeys - 1) {
        hide_future(scores, ahead, state);
      } else {
        note_lowest(scores, state);
      }
      weigh_scores<T>(scores, work.scale, state, acc);
#pragma unroll
      for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
        for (int k = 0; k < kKeys / 16; ++k) {
          Fragments<T>::from_accumulators(weights[strip][k], scores[strip][2 * k], scores[strip][2 * k + 1]);
        }
      }
    }
    ptx::cp_async_wait<1>();
    __syncthreads();
    if (next < work.start + work.rows) {
      load_tile(work.values, next, 2 * step + 3);
    } else {
      load_memory(kSlice, 2 * step + 3);
      if (work.remembers) load_queries();  // as they were
    }
    ptx::cp_async_commit();
    if (sees) add_values(acc, weights, Shared{buffer(2 * step + 1)});
  }

  RowWeights<kStrips> weights;
  if (work.remembers) {
    ptx::cp_async_wait<0>();
    __syncthreads();
    weights = weigh_rows<kStrips>(query, row, work.memory, work.memory_gate);
  }
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (!work.remembers) weights.rest[strip][half] = 1.0f;
      const float mass = across_row(state.mass[strip][half], [](float a, float b) { return a + b; });
      const float share = work.local_gate / (mass * weights.rest[strip][half]);
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        acc[strip][n][2 * half] *= share;
        acc[strip][n][2 * half + 1] *= share;
      }
      const int at = row + 16 * strip + 8 * half + lane_id() / 4;
      const float lowest = state.lowest[strip][half] * work.scale.score;
      const float top = state.top[strip][half] * work.scale.score;
      if (at < work.rows && !(is_finite(lowest) && is_finite(top))) {
        note_failure(work.failure, work.first_token + at, kOutput);
      }
    }
  }
  if (work.remembers) {
#pragma unroll 1
    for (int first = 0, element = 2 * step; first < work.memory.rows; first += kSlice, ++element) {
      if (first > 0) {
        ptx::cp_async_wait<1>();
        __syncthreads();
      }
      load_memory(first + 2 * kSlice, element + 2);
      ptx::cp_async_commit();
      read_slice<kStrips, kKeys>(acc, query, row, Slice{buffer(element)}, first, work.memory, weights);
    }
  }

  T* output = work.output;
  const int stride = work.output_stride;
  write_rows(acc, weights.rest, query, row, work.rows - row, shape.value_dim, work.failure, work.first_token,
             [&](int i) { return output + (long long)i * stride; });
}

}  // namespace

int forward_tile_rows(const Shape& shape) {
  return dispatch(shape.element, shape.head_dim > shape.value_dim ? shape.head_dim : shape.value_dim,
                  [](auto type, auto dim) { return forward_tile(dim, sizeof(typename decltype(type)::type)).rows; });
}

cudaError_t launch_forward(const Shape& shape, const Job* jobs, const QueryTile* tiles, int tile_count,
                           const Workspace& workspace, cudaStream_t stream) {
  if (tile_count == 0) return cudaSuccess;
  const int dim = shape.head_dim > shape.value_dim ? shape.head_dim : shape.value_dim;
  return dispatch(shape.element, dim, [&](auto type, auto bucket) {
    using T = typename decltype(type)::type;
    constexpr int kDim = bucket;
    constexpr ForwardTile kTile = forward_tile(kDim, sizeof(T));
    return launch(forward<T, kDim>, dim3(unsigned(tile_count) * unsigned(shape.heads)), dim3(kTile.threads()),
                  kTile.shared_bytes(kDim, sizeof(T)), stream, shape, jobs, tiles, tile_count, workspace);
  });
}

}  // namespace infini::cuda

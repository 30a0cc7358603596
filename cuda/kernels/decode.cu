// Decode: attention of a few new tokens per stream, in one launch for all streams.
//
//   output = (1 - g) softmax(q k') v + g sigma(q) M / (sigma(q) . z)      k, v: the open segment and the new tokens
//
//   in   job.query [tokens][heads][head_dim], key and value [tokens][kv_heads][dim]; the cache [kv_heads][N][dim] before
//        job.open; job.matrix [kv_heads][head_dim][value_dim] and normalizer if job.absorbed
//   out  job.output [tokens][heads][value_dim]; the new keys and values in the cache; job.failure
// Everything is read once, and the time is that of the bytes. A block reads one split for up to 16 query rows (row =
// token * group + member of the group) of one kv head: a run of positions, in steps of tile.keys, or some rows of M.
// Both are weights times rows: softmax weights times values, features times M. The warps of a block share a step, the
// last block of a kv head to arrive adds the splits up. Splits lie on the segment's own grid: what a stream computes
// depends on its position and on nothing else.
//
// The new keys and values enter the cache here, at positions job.open and after, by the block that reads them: they
// count only once the host says so.
// Scratch: [kTickets] int, zero between launches; then for each job, kv head and row block the stats of key splits
// [rows][key splits] {top, mass} and the sums [splits][rows][value_dim].
#include <algorithm>

#include "dispatch.h"
#include "kernels/decode_merge.cuh"
#include "kernels/decode_scores.cuh"
#include "kernels/features.cuh"
#include "kernels/pieces.cuh"

namespace infini::cuda {
namespace {

using namespace decoding;

constexpr int kTickets = 1 << 16;
// Weights of positions are 2^kOffset exp(score - top): a sum of 65536 values of any size stays within float32.
template <class T> constexpr float kOffset = -17.0f;
template <> constexpr float kOffset<float16> = 0.0f;

// ---- a split of positions

// Scores of positions become weights. visible: how many positions of the step each of the two rows sees. What is not
// finite among the scores makes the mass NaN, whatever its weight.
template <class T>
__device__ __forceinline__ void weigh(float (&scores)[2][4], Sums& sums, const Block& block, float scale,
                                      const int (&visible)[2]) {
  float rescale[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int first = 16 * block.part() + 2 * (lane_id() & 3);
    const auto sees = [&](int n, int e) { return first + 8 * n + e < visible[half]; };
    float top = sums.top[half];
#pragma unroll
    for (int at = 0; at < 4; ++at) {
      float& score = scores[at / 2][2 * half + at % 2];
      score *= scale;
      if (sees(at / 2, at % 2)) top = fmaxf(top, score);
    }
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
    rescale[half] = relative_weight(sums.top[half], top);
    sums.top[half] = top;
    sums.mass[half] *= rescale[half];
#pragma unroll
    for (int at = 0; at < 4; ++at) {
      float& score = scores[at / 2][2 * half + at % 2];
      const bool seen = sees(at / 2, at % 2);
      if (seen) sums.mass[half] = fmaf(score, 0.0f, sums.mass[half]);
      score = seen ? ptx::exp2_approx(fmaf(score - top, kLog2e, kOffset<T>)) : 0.0f;
    }
  }
  if (__any_sync(~0u, rescale[0] != 1.0f || rescale[1] != 1.0f)) {
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums.columns[n][i] *= rescale[i / 2];
    }
  }
}

// Those before all positions from `first` on are written as zeros.
template <bool kRotary, class T>
__device__ __forceinline__ void write_queries(const Block& block, const QueryRows<T>& queries, float factor,
                                              int first) {
  const Shape& shape = block.shape;
  for (int row = 0; row < block.rows; ++row) {
    const T* query = block.query<T>(row);
    if constexpr (!kRotary) {
      queries.template write<kThreads>(row, query, factor);
    } else {
      const int distance = block.job.open + block.token(row) - first;
      const float2* turns = distance < 0 ? nullptr : shape.rotary + (long long)distance * (shape.head_dim / 2);
      queries.template write_turned<kThreads>(row, query, factor, turns);
    }
  }
}

// Starts to copy positions begin..end.
template <class T>
__device__ __forceinline__ void load(const Rows<T>& to, const SegmentRows<T>& rows, int begin, int end) {
  if (begin < end) {
    const int cached = min(max(rows.open, begin), end);
    to.template load<kThreads>(0, cached - begin, rows.cached + (long long)begin * rows.dim, rows.dim);
    if (cached < end) {
      const T* const fresh = rows.fresh + (cached - rows.open) * rows.stride;
      to.template load<kThreads>(cached - begin, end - cached, fresh, rows.stride);
      to.template clear<kThreads>(end - begin, padded(end - begin));
    }
  }
  ptx::cp_async_commit();
}

// New rows among positions begin..end go into the cache.
template <class T>
__device__ __forceinline__ void append(const Block& block, const SegmentRows<T>& rows, void* cache, int begin,
                                       int end) {
  T* to = static_cast<T*>(cache) + (long long)block.kv_head * block.shape.segment_length * rows.dim;
  for (int position = max(begin, rows.open); position < end; ++position) {
    const T* from = rows(position);
    for (int i = int(threadIdx.x); i < rows.dim; i += kThreads) to[(long long)position * rows.dim + i] = from[i];
  }
}

template <class T, bool kRotary> __device__ __forceinline__ void attend(const Block& block, int split, Sums& sums) {
  const Shape& shape = block.shape;
  const Job& job = block.job;
  const int step = block.tile.keys, mine = 16 * block.part();  // the warp's sixteen positions of a step
  const int begin = split * block.tile.steps * step, end = min(begin + block.tile.steps * step, job.open + job.tokens);
  const Piece piece = {0, job.open, job.tokens};
  const Rows<T> keys = {block.staged, shape.head_dim}, values = {keys.row(step), shape.value_dim};
  // Two loads are under way whenever a wait comes: the next keys follow when these are done with, then the values.
  const auto load_keys = [&](int first) {
    load(keys, key_rows<T>(job, shape, piece, block.kv_head), first, min(first + step, end));
  };
  const auto load_values = [&](int first) {
    load(values, value_rows<T>(job, shape, piece, block.kv_head), first, min(first + step, end));
  };
  load_keys(begin);
  load_values(begin);
  if (block.first_row == 0) {
    append(block, key_rows<T>(job, shape, piece, block.kv_head), job.cached_keys, begin, end);
    append(block, value_rows<T>(job, shape, piece, block.kv_head), job.cached_values, begin, end);
  }

  // The scale in two factors, a power of two for the queries: q k may exceed float32 where the score does not. That of
  // float16 cannot.
  const uint32_t exponent = max(__float_as_uint(shape.scale) & 0x7f800000u, 1u << 23);
  const float factor = std::is_same_v<T, float16> ? 1.0f : fminf(1.0f, __uint_as_float(exponent));
  const float scale = shape.scale / factor;
  const QueryRows<T> queries = {block.queries, shape.head_dim};
  const int row = lane_id() >> 2;
  const int seen[2] = {job.open + block.token(row) + 1, job.open + block.token(row + 8) + 1};

  queries.template clear<kThreads, kRotary>(block.rows);
  if (!kRotary) write_queries<kRotary>(block, queries, factor, begin);
  sums = {};
  sums.top[0] = sums.top[1] = kLowest;
  for (int first = begin; first < end; first += step) {
    const int count = min(step, end - first);
    if (kRotary) write_queries<kRotary>(block, queries, factor, first);
    ptx::cp_async_wait<1>();
    __syncthreads();
    float scores[2][4] = {};
    if (mine < count) {
      if constexpr (kRotary) {
        score_turned(scores, queries, keys, mine, shape.rotary, shape.segment_length);
      } else {
        score(scores, queries, keys, mine);
      }
    }
    __syncthreads();
    load_keys(first + step);
    const int visible[2] = {min(count, seen[0] - first), min(count, seen[1] - first)};
    weigh<T>(scores, sums, block, scale, visible);
    ptx::cp_async_wait<1>();
    __syncthreads();
    if (mine < count) {
      typename Fragments<T>::A weights;
      Fragments<T>::from_accumulators(weights, scores[0], scores[1]);
#pragma unroll
      for (int i = 0; i < 8; ++i) sums.mass[Fragments<T>::row_half(i)] += Fragments<T>::get(weights, i);
#pragma unroll
      for (int n = 0; n < kColumns / 8; n += 2) {
        const int column = block.column() + 8 * n;
        if (column >= shape.value_dim) break;
        typename Fragments<T>::B b[2];
        Fragments<T>::template load_b_transposed<Order::Accumulator>(b, values, mine, column);
        Fragments<T>::multiply(sums.columns[n], weights, b[0]);
        Fragments<T>::multiply(sums.columns[n + 1], weights, b[1]);
      }
    }
    __syncthreads();
    load_values(first + step);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sums.mass[half] += __shfl_xor_sync(~0u, sums.mass[half], 1);
    sums.mass[half] += __shfl_xor_sync(~0u, sums.mass[half], 2);
  }
}

// ---- a split of the memory

// The features of the queries that meet rows first .. first + count of M.
template <class T>
__device__ __forceinline__ void write_features(const Block& block, const WideRows<T>& features, int first, int count) {
  const int dim = block.shape.head_dim;
  const double* normalizer = block.job.normalizer + (long long)block.kv_head * dim;
  for (int row = warp_id(); row < DecodeTile::kRows; row += kWarps) {
    const T* query = row < block.rows ? block.query<T>(row) : nullptr;
    const auto feature = [&](int i) { return query ? stored(sigma(to_float(query[i])), float(normalizer[i])) : 0.0f; };
    float largest = 0.0f, mass = 0.0f;
    for (int i = lane_id(); i < dim; i += 32) largest = fmaxf(largest, feature(i));
    const float scale = row_scale(warp_max(largest));
    for (int i = lane_id(); i < dim; i += 32) mass = fmaf(feature(i) * scale, float(normalizer[i]), mass);
    const float share = row_share(warp_sum(mass));
    for (int i = lane_id(); i < padded(count); i += 32) {
      features.put(row, i, i < count ? feature(first + i) * scale * share : 0.0f);
    }
  }
}

template <class T> __device__ __forceinline__ void remember(const Block& block, int split, Sums& sums) {
  const Shape& shape = block.shape;
  const int first = split * block.tile.memory_rows, count = min(block.tile.memory_rows, shape.head_dim - first);
  const float* matrix = block.job.matrix + ((long long)block.kv_head * shape.head_dim + first) * shape.value_dim;
  const Rows<float> rows = {block.staged, shape.value_dim};
  const WideRows<T> features = {block.queries, block.tile.memory_rows};
  rows.load<kThreads>(0, count, matrix, shape.value_dim);
  rows.clear<kThreads>(count, padded(count));
  ptx::cp_async_commit();
  write_features<T>(block, features, first, count);
  ptx::cp_async_wait<0>();
  __syncthreads();
  sums = {};
  for (int k = 16 * block.part(); k < count; k += 16 * block.tile.parts) {
    Product<T> product;
    product.load(features, k);
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
      const int column = block.column() + 8 * n;
      if (column >= shape.value_dim) break;
      float x[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) x[i] = rows.at(k + Product<T>::row(i), column + (lane_id() >> 2));
      product.multiply(sums.columns[n], x);
    }
  }
  __syncthreads();
}

// Three blocks a multiprocessor, as far as registers decide; a rotation of float32 needs more of them.
template <class T, bool kRotary>
__global__ void __launch_bounds__(kThreads, kRotary && sizeof(T) == 4 ? 2 : 3)
    decode(const __grid_constant__ Shape shape, const __grid_constant__ DecodeTile tile, const Job* jobs, int* tickets,
           float* partials) {
  DYNAMIC_SHARED(shared);
  // Row blocks of a split are neighbours: what the first one reads, the others find in the device's cache.
  const int row_block = int(blockIdx.x % unsigned(tile.row_blocks));
  const int split = int(blockIdx.x / unsigned(tile.row_blocks) % unsigned(tile.splits));
  const int job_head = int(blockIdx.x / unsigned(tile.row_blocks * tile.splits));
  const Job& job = jobs[job_head / shape.kv_heads];

  const int group = shape.heads / shape.kv_heads, first_row = row_block * tile.rows;
  const int rows = min(tile.rows, job.tokens * group - first_row);
  const int span = tile.steps * tile.keys, key_splits = (job.open + job.tokens + span - 1) / span;
  if (rows <= 0 || split >= tile.memory_splits + key_splits || (split < tile.memory_splits && !job.absorbed)) return;

  const int kv_head = job_head % shape.kv_heads;
  const Block block = {shape, tile, job, group, kv_head, first_row, rows, shared, shared + tile.staged_bytes};
  Sums sums;
  if (split < tile.memory_splits) {
    remember<T>(block, split, sums);
  } else {
    attend<T, kRotary>(block, split - tile.memory_splits, sums);
  }

  const int record = job_head * tile.row_blocks + row_block;
  float2* const stats = reinterpret_cast<float2*>(partials + record * tile.record_floats);
  float* const sums_of_splits = reinterpret_cast<float*>(stats + tile.rows * tile.key_splits);
  float* const mine = sums_of_splits + (long long)split * tile.rows * shape.value_dim;
  write_sums(block, sums, mine, split < tile.memory_splits ? nullptr : stats + split - tile.memory_splits);

  // What a block wrote lies before its fence and its ticket; who draws the last ticket sees all of it.
  SHARED_VARIABLE(last, bool);
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(tickets + record, 1) + 1 == key_splits + (job.absorbed ? tile.memory_splits : 0);
    if (last) atomicExch(tickets + record, 0);
    __threadfence();
  }
  __syncthreads();
  if (last) merge<T>(block, key_splits, stats, sums_of_splits);
}

// Tickets, and so the scratch, serve any shape: jobs that find none are another launch.
int jobs_at_once(const Shape& shape, const DecodeTile& tile) { return kTickets / (shape.kv_heads * tile.row_blocks); }

}  // namespace

int64_t decode_scratch_bytes(const Shape& shape, int job_count, int most_tokens) {
  const DecodeTile tile = decode_tile(shape, most_tokens);
  const int64_t records = int64_t(std::min(job_count, jobs_at_once(shape, tile))) * shape.kv_heads * tile.row_blocks;
  return 4 * (kTickets + records * tile.record_floats);
}

cudaError_t launch_decode(const Shape& shape, const Job* jobs, int job_count, void* scratch, cudaStream_t stream,
                          int most_tokens) {
  const DecodeTile tile = decode_tile(shape, most_tokens);
  int* const tickets = static_cast<int*>(scratch);
  float* const partials = reinterpret_cast<float*>(tickets + kTickets);
  return dispatch_element(shape.element, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto kernel = shape.rotary == nullptr ? decode<T, false> : decode<T, true>;
    const int at_once = jobs_at_once(shape, tile);
    for (int first = 0; first < job_count; first += at_once) {
      const dim3 grid(unsigned(std::min(job_count - first, at_once) * shape.kv_heads * tile.row_blocks * tile.splits));
      const cudaError_t error =
          launch(kernel, grid, kThreads, tile.shared_bytes(), stream, shape, tile, jobs + first, tickets, partials);
      if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
  });
}

}  // namespace infini::cuda

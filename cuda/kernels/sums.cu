// B = sigma(K)^T V and G = sigma(K)^T P (kernels/state.cuh): what the tokens of a segment add to the memory.
//
//   in   keys and values of the segment that ends at each border, its key_sums, and z before it (normalizers)
//   out  sums[border][kv_head][chunk][padded head_dim][padded value_dim + padded head_dim if delta]: B | G, float32,
//        row i in units of key_unit(key_sums[i]); zero where padded. G is left alone where no memory precedes the segment.
// A block owns all rows of one slab of columns, of B or of G, of one chunk (or of all: Workspace::whole_sums). It goes
// through the tokens in steps: the next step's rows arrive (cp.async) while this one's keys become sigma in place and are
// multiplied on tensor cores.
// 16-bit streams: sigma is a pair of bfloat16, high + low, never one; values are exact, as one bfloat16 or (float16) a
// pair; shares are one bfloat16, or a pair where G sums too few of them (kEnoughShares) for their errors to average out.
// float32 streams multiply float32. Accumulators start from zero in every chunk.
// Memory, for each segment: N (head_dim + value_dim) elements read (the keys of further slabs come from the L2 cache)
// and 4 head_dim (value_dim + head_dim) bytes written for each chunk, or for all.
#include <algorithm>

#include "dispatch.h"
#include "kernels/eight.cuh"
#include "kernels/fragments.cuh"
#include "kernels/pieces.cuh"
#include "kernels/state.cuh"
#include "tiles.h"

namespace infini::cuda {
namespace {

// One row's sum or maximum over the kLanes neighbouring threads that hold it.
template <int kLanes> __device__ __forceinline__ float row_sum(float x) {
#pragma unroll
  for (int distance = 1; distance < kLanes; distance *= 2) x += __shfl_xor_sync(~0u, x, distance);
  return x;
}
template <int kLanes> __device__ __forceinline__ float row_max(float x) {
#pragma unroll
  for (int distance = 1; distance < kLanes; distance *= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, distance));
  return x;
}

// segment_length * head_dim, above which one bfloat16 for each share costs M less than 1e-5.
constexpr int kEnoughShares = 16384;

// What the threads of a block share beside its tiles; kept here, for registers are for sums.
template <class T, int kDim> struct Common {
  SegmentRows<T> keys, values;  // values from the block's first column on
  float* sums;                  // where the block writes: row 0, its first column
  int columns;                  // of its slab that exist, padded ones too
  float4 inverse_units[kDim / 4], normalizers[kDim / 4];  // of each component; zero where padded
};

// Which sums a block makes.
struct Task {
  Place place;
  int border, kv_head, part, parts;
};

// A block of G (kGram) or of B.
template <class T, int kDim, bool kGram> struct SumsBlock {
  static constexpr SumsTile kTile = sums_tile(kDim);
  static constexpr int kThreads = kTile.threads(kDim), kSlab = kTile.slab, kStep = kTile.tokens;
  static constexpr int kLeftBytes = Tile<T, kDim>::bytes(kStep), kRightBytes = Tile<T, kSlab>::bytes(kStep);
  static constexpr bool kPairs = !std::is_same_v<T, float>;        // sigma is high + low
  static constexpr bool kValuePairs = std::is_same_v<T, float16>;  // and so are values
  using Operand = std::conditional_t<kPairs, bfloat16, float>;
  using Left = Tile<Operand, kDim>;
  using Right = Tile<Operand, kSlab>;
  using Product = Fragments<Operand>;
  static constexpr int kWarpsDown = kDim / kTile.warp_rows, kWarpColumns = SumsTile::kWarpColumns;
  static constexpr int kRowTiles = kTile.warp_rows / 16, kColumnTiles = kWarpColumns / 8;

  const Shape& shape;
  Common<T, kDim>& common;
  unsigned char* const left;   // [2] steps of keys; in place they become sigma, or its high half
  unsigned char* const right;  // [2] steps of values, or their high half; or of shares the high and the low half
  const int first_column;
  const bool right_pairs;
  float sum[kRowTiles][kColumnTiles][4];

  __device__ SumsBlock(const Shape& shape, Common<T, kDim>& common, unsigned char* shared, int first_column)
      : shape(shape), common(common), left(shared), right(shared + 2 * kLeftBytes), first_column(first_column),
        right_pairs(kGram ? kPairs && (long long)shape.segment_length * shape.head_dim < kEnoughShares : kValuePairs) {}

  __device__ Left left_low() const { return {right + 2 * kRightBytes}; }
  __device__ Right right_high(int stage) const { return {right + (kGram ? 0 : stage * kRightBytes)}; }
  __device__ Right right_low() const { return {kGram ? right + kRightBytes : right + 2 * kRightBytes + kLeftBytes}; }

  __device__ void prepare(const Task& task, const Job& job, const Workspace& workspace) {
    const int rows = padded(shape.head_dim), value_columns = padded(shape.value_dim);
    const long long head = (long long)task.border * shape.kv_heads + task.kv_head;
    if (threadIdx.x == 0) {
      const Piece piece = piece_of(job, shape, task.place.index);
      common.keys = key_rows<T>(job, shape, piece, task.kv_head);
      common.values = value_rows<T>(job, shape, piece, task.kv_head);
      common.values.cached += first_column;
      common.values.fresh += first_column;
      common.sums = workspace.sums +
                    (head * task.parts + task.part) * rows * (value_columns + (shape.delta ? rows : 0)) +
                    (kGram ? value_columns : 0) + first_column;
      common.columns = (kGram ? rows : value_columns) - first_column;
    }
    const float* normalizers =
        workspace.normalizers + ((long long)(job.first_piece + task.place.index) * shape.kv_heads + task.kv_head) * rows;
    for (int i = int(threadIdx.x); i < kDim; i += kThreads) {
      const bool exists = i < shape.head_dim;
      reinterpret_cast<float*>(common.inverse_units)[i] =
          exists ? reciprocal(key_unit(workspace.key_sums[head * shape.head_dim + i])) : 0.0f;
      if (kGram) reinterpret_cast<float*>(common.normalizers)[i] = exists ? normalizers[i] : 0.0f;
    }
    __syncthreads();
  }

  // Starts to load the step of tokens first to first + kStep, those before `end`.
  __device__ void load(int first, int end, int stage) {
    const SegmentRows<T> keys = common.keys;
    load_rows<kThreads>(Tile<T, kDim>{left + stage * kLeftBytes}, kStep, shape.head_dim,
                        [&](int row) { return first + row < end ? keys(first + row) : nullptr; });
    if (!kGram) {
      const SegmentRows<T> values = common.values;
      load_rows<kThreads>(Tile<T, kSlab>{right + stage * kRightBytes}, kStep, shape.value_dim - first_column,
                          [&](int row) { return first + row < end ? values(first + row) : nullptr; });
    }
    ptx::cp_async_commit();
  }

  // Makes operands of the step's rows, of which `count` exist. kLanes threads share a row of keys.
  __device__ void convert(int count, int stage) {
    using Key = Eight<T>;
    constexpr int kLanes = kDim / 8;
    const int lane = int(threadIdx.x) % kLanes;
    unsigned char* const keys = left + stage * kLeftBytes;
    Key inverse_unit;  // of this thread's columns, for all rows
    inverse_unit.load(common.inverse_units, lane, kLanes);
#pragma unroll 1
    for (int row = int(threadIdx.x) / kLanes; row < kStep; row += kThreads / kLanes) {
      Key key, scaled;
      key.load(Tile<T, kDim>{keys}, row, lane);
#pragma unroll
      for (int c = 0; c < Key::kChunks; ++c) {
#pragma unroll
        for (int i = 0; i < Key::kPerChunk; ++i) {
          key.x[c][i] = row < count ? sigma(key.x[c][i]) : 0.0f;
          scaled.x[c][i] = key.x[c][i] * inverse_unit.x[c][i];
        }
        store_exactly(Left{keys}, left_low(), row, lane + c * kLanes, scaled.x[c]);
      }
      if (kGram) store_shares<kLanes>(row, lane, key);
    }
    if constexpr (!kGram && kValuePairs) {
      constexpr int kValueLanes = kSlab / 8;
#pragma unroll 1
      for (int i = int(threadIdx.x); i < kStep * kValueLanes; i += kThreads) {
        Eight<T> value;
        value.load(Tile<T, kSlab>{right + stage * kRightBytes}, i / kValueLanes, i % kValueLanes);
        store_exactly(right_high(stage), right_low(), i / kValueLanes, i % kValueLanes, value.x[0]);
      }
    }
  }

  // From a row of sigma.
  template <int kLanes> __device__ void store_shares(int row, int lane, Eight<T> key) {
    Eight<T> normalizer;
    normalizer.load(common.normalizers, lane, kLanes);
    float most = 0.0f, mass = 0.0f;
#pragma unroll
    for (int c = 0; c < key.kChunks; ++c) {
#pragma unroll
      for (int i = 0; i < key.kPerChunk; ++i) {
        key.x[c][i] = stored(key.x[c][i], normalizer.x[c][i]);
        most = fmaxf(most, key.x[c][i]);
      }
    }
    const float unit = row_scale(row_max<kLanes>(most));
#pragma unroll
    for (int c = 0; c < key.kChunks; ++c) {
#pragma unroll
      for (int i = 0; i < key.kPerChunk; ++i) {
        key.x[c][i] *= unit * normalizer.x[c][i];
        mass += key.x[c][i];
      }
    }
    const float inverse = row_share(row_sum<kLanes>(mass));
#pragma unroll
    for (int c = 0; c < key.kChunks; ++c) {
#pragma unroll
      for (int i = 0; i < key.kPerChunk; ++i) key.x[c][i] *= inverse;
      const int column = key.template column<kDim>(lane, c, 0) - first_column;
      if (column < 0 || column >= kSlab) continue;
      if (right_pairs) {
        store_exactly(right_high(0), right_low(), row, column / key.kPerChunk, key.x[c]);
      } else {
        store(right_high(0), row, column / key.kPerChunk, key.x[c]);
      }
    }
  }

  __device__ int warp_row() const { return int(threadIdx.x) / 32 % kWarpsDown * kTile.warp_rows; }
  __device__ int warp_column() const { return int(threadIdx.x) / 32 / kWarpsDown * kWarpColumns; }

  __device__ void multiply(int stage) {
    const Left high_rows{left + stage * kLeftBytes};
    const int shift = warp_column() * int(sizeof(Operand));  // a multiple of 128 bytes: the permutation stays the same
    const Right high_columns{right_high(stage).data + shift}, low_columns{right_low().data + shift};
#pragma unroll 1
    for (int k = 0; k < kStep; k += 16) {
      typename Product::A high[kRowTiles], low[kRowTiles];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        Product::load_a_transposed(high[m], high_rows, k, warp_row() + 16 * m);
        if constexpr (kPairs) Product::load_a_transposed(low[m], left_low(), k, warp_row() + 16 * m);
      }
#pragma unroll
      for (int n = 0; n < kColumnTiles; n += 2) {
        typename Product::B b[2];
        const auto add = [&](const typename Product::A(&a)[kRowTiles]) {
#pragma unroll
          for (int m = 0; m < kRowTiles; ++m) {
            Product::multiply(sum[m][n], a[m], b[0]);
            Product::multiply(sum[m][n + 1], a[m], b[1]);
          }
        };
        Product::load_b_transposed(b, high_columns, k, 8 * n);
        add(high);
        if constexpr (kPairs) add(low);
        if (right_pairs) {
          Product::load_b_transposed(b, low_columns, k, 8 * n);
          add(high);
        }
      }
    }
  }

  __device__ void clear_sums() {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) clear(sum[m][n]);
    }
  }
  // To global memory, or to what is there; padded sums are zero as their operands are.
  __device__ void write_sums(bool add) {
    const int rows = padded(shape.head_dim), stride = padded(shape.value_dim) + (shape.delta ? rows : 0);
    float* const to = common.sums;
    const int columns = common.columns;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
        const int column = warp_column() + 8 * n + 2 * (lane_id() % 4);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = warp_row() + 16 * m + 8 * half + lane_id() / 4;
          if (row >= rows || column >= columns) continue;
          float2& two = *reinterpret_cast<float2*>(to + row * stride + column);
          const float2 before = add ? two : float2{0.0f, 0.0f};
          two = {before.x + sum[m][n][2 * half], before.y + sum[m][n][2 * half + 1]};
        }
      }
    }
  }

  __device__ void run(const Task& task, const Job& job, const Workspace& workspace) {
    const int begin = task.part * kChunkTokens;
    const int end = task.parts > 1 ? min(begin + kChunkTokens, shape.segment_length) : shape.segment_length;
    prepare(task, job, workspace);
    load(begin, end, 0);
    clear_sums();
#pragma unroll 1
    for (int first = begin; first < end; first += kStep) {
      const int stage = first / kStep % 2;
      ptx::cp_async_wait<0>();
      __syncthreads();  // this step is here, and everybody has left the one before
      if (first + kStep < end) load(first + kStep, end, 1 - stage);
      convert(end - first, stage);
      __syncthreads();
      multiply(stage);
      if ((first + kStep) % kChunkTokens == 0 || first + kStep >= end) {
        write_sums(task.parts == 1 && first >= kChunkTokens);
        clear_sums();
      }
    }
  }
};

template <class T, int kDim>
__global__ void __launch_bounds__(sums_tile(kDim).threads(kDim), sizeof(T) == 2 ? sums_tile(kDim).blocks : 1)
    sums_kernel(const Shape shape, const Job* jobs, const Place* borders, const Workspace workspace, const int parts) {
  constexpr int kSlab = SumsBlock<T, kDim, false>::kSlab;
  DYNAMIC_SHARED(shared);
  SHARED_VARIABLE(common, Common<T, kDim>);
  const int value_slabs = (shape.value_dim + kSlab - 1) / kSlab;
  const int slabs = value_slabs + (shape.delta ? (shape.head_dim + kSlab - 1) / kSlab : 0);
  const int slab = int(blockIdx.x) % slabs, border = int(blockIdx.x) / slabs / shape.kv_heads / parts;
  const Task task = {borders[border], border, int(blockIdx.x) / slabs % shape.kv_heads,
               int(blockIdx.x) / slabs / shape.kv_heads % parts, parts};
  const Job& job = jobs[task.place.job];
  if (slab < value_slabs) {
    const int first_column = kSlab < kDim ? slab * kSlab : 0;
    SumsBlock<T, kDim, false>(shape, common, shared, first_column).run(task, job, workspace);
  } else if (job.absorbed || task.place.index > 0) {
    const int first_column = kSlab < kDim ? (slab - value_slabs) * kSlab : 0;
    SumsBlock<T, kDim, true>(shape, common, shared, first_column).run(task, job, workspace);
  }
}

}  // namespace

cudaError_t launch_sums(const Shape& shape, const Job* jobs, const Place* borders, int border_count,
                        const Workspace& workspace, cudaStream_t stream) {
  if (border_count == 0) return cudaSuccess;
  return dispatch(shape.element, std::max(shape.head_dim, shape.value_dim), [&](auto type, auto dim) {
    using T = typename decltype(type)::type;
    constexpr int kDim = decltype(dim)::value;
    constexpr SumsTile kTile = sums_tile(kDim);
    const int slabs = (shape.value_dim + kTile.slab - 1) / kTile.slab +
                      (shape.delta ? (shape.head_dim + kTile.slab - 1) / kTile.slab : 0);
    const int parts = workspace.whole_sums ? 1 : chunks(shape.segment_length);
    return launch(sums_kernel<T, kDim>, dim3(unsigned(border_count * parts * shape.kv_heads * slabs)),
                  dim3(unsigned(kTile.threads(kDim))), size_t(kTile.shared_bytes(kDim, shape.element)), stream, shape, jobs,
                  borders, workspace, parts);
  });
}

}  // namespace infini::cuda

// M from piece to piece: published before every piece, and at every border M' = M + B - G (M / z) (kernels/state.cuh).
//
//   in   job.matrix (zeros unless job.absorbed); sums, key_sums and normalizers of the job's borders
//   out  snapshots[piece][kv_head][term][padded head_dim][padded value_dim]: M before the piece, zero where padded
//        job.next_matrix, float32, if the job has borders; may be job.matrix itself
// A block owns 32 columns of one head's M, and keeps them in registers through all pieces: a warp has 16 rows, a thread
// (g = lane / 4, t = lane % 4) rows g and g + 8, columns 8t to 8t + 7. At a border M / z goes to shared memory for the
// other warps; then everything a thread needs of B and G comes to that thread alone, from global memory through a queue
// in shared memory (cp.async), in the order in which it is used and across borders: no barrier, no register waits for it.
// The product is float32-grade (3xTF32), sums are rounded to nearest, and chunks are added in their order.
// An element of M that is not finite fails the call at the segment's last token.
// Memory, for each border and head: B once, G once from memory and again from the L2 cache for each further 32 columns, a
// snapshot written. M itself is read and written once in a step.
#include "kernels/fragments.cuh"
#include "kernels/state.cuh"
#include "tiles.h"

namespace infini::cuda {
namespace {

constexpr ChainTile kTile = chain_tile();
constexpr int kColumns = kTile.columns, kStages = kTile.stages;

// Eight consecutive numbers of a row, of which the first `count` exist.
__device__ __forceinline__ void read(float (&x)[8], const float* from, int count, bool aligned) {
  if (aligned && count >= 8) {
    const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
    x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = i < count ? from[i] : 0.0f;
  }
}
__device__ __forceinline__ void write(float* to, const float (&x)[8], int count, bool aligned) {
  if (aligned && count >= 8) {
    reinterpret_cast<float4*>(to)[0] = {x[0], x[1], x[2], x[3]};
    reinterpret_cast<float4*>(to)[1] = {x[4], x[5], x[6], x[7]};
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i < count) to[i] = x[i];
    }
  }
}
__device__ __forceinline__ void write(bfloat16* to, const bfloat16 (&x)[8]) {
  *reinterpret_cast<int4*>(to) = {int(pack(x[0], x[1])), int(pack(x[2], x[3])), int(pack(x[4], x[5])),
                                  int(pack(x[6], x[7]))};
}

// The sums that a thread adds at the job's borders, 32 bytes at a time: for each border its columns of B in its two rows,
// then, if there is a product, step by step of 16 columns of G, columns 4t to 4t + 3 in both rows; each chunk by chunk.
class Queue {
 public:
  __device__ Queue(const Shape& shape, const Job& job, const float* sums, int parts, int kv_head, int row, int first_column,
                   unsigned char* shared)
      : shape_(shape), job_(job), parts_(parts), rows_(padded(shape.head_dim)), value_columns_(padded(shape.value_dim)),
        columns_(value_columns_ + (shape.delta ? rows_ : 0)), first_column_(first_column), row_(row),
        head_(sums + ((long long)job.first_border * shape.kv_heads + kv_head) * parts * rows_ * columns_),
        slots_(shared + threadIdx.x * 16) {
    for (int i = 0; i < kStages - 1; ++i) fetch();
  }

  // Whether the job's border corrects M by G.
  __device__ bool corrects(int border) const { return shape_.delta && (job_.absorbed || border > 0); }
  __device__ int steps() const { return rows_ / 16; }

  // The next eight numbers, summed over the chunks.
  __device__ void take(float (&x)[8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = 0.0f;
    for (int part = 0; part < parts_; ++part) {
      ptx::cp_async_wait<kStages - 2>();
      const float4 a = *reinterpret_cast<const float4*>(slot(taken_)), b = *reinterpret_cast<const float4*>(slot(taken_) + half());
      x[0] += a.x, x[1] += a.y, x[2] += a.z, x[3] += a.w;
      x[4] += b.x, x[5] += b.y, x[6] += b.z, x[7] += b.w;
      taken_ = (taken_ + 1) % kStages;
      fetch();
    }
  }

 private:
  __device__ int half() const { return int(blockDim.x) * 16; }
  __device__ unsigned char* slot(int index) const { return slots_ + index * 2 * half(); }

  // Starts the next copy, into the slot that was taken last.
  __device__ void fetch() {
    if (border_ < job_.borders) {
      const float* from = head_ + part_ * (long long)rows_ * columns_;
      const float* second;
      bool exists = true;
      if (step_ < 2) {
        from += (row_ + 8 * step_) * columns_ + first_column_;
        second = from + 4;
        exists = first_column_ < value_columns_;
      } else {
        from += row_ * columns_ + value_columns_ + 16 * (step_ - 2) + 4 * (lane_id() % 4);
        second = from + 8 * columns_;
      }
      if (exists) {
        ptx::cp_async16(ptx::shared_address(slot(fetched_)), from, 16);
        ptx::cp_async16(ptx::shared_address(slot(fetched_) + half()), second, 16);
      } else {
        *reinterpret_cast<float4*>(slot(fetched_)) = {};
        *reinterpret_cast<float4*>(slot(fetched_) + half()) = {};
      }
      if (++part_ == parts_) {
        part_ = 0;
        if (++step_ == 2 + (corrects(border_) ? steps() : 0)) {
          step_ = 0;
          ++border_;
          head_ += (long long)shape_.kv_heads * parts_ * rows_ * columns_;
        }
      }
    }
    ptx::cp_async_commit();
    fetched_ = (fetched_ + 1) % kStages;
  }

  const Shape& shape_;
  const Job& job_;
  const int parts_, rows_, value_columns_, columns_, first_column_, row_;
  const float* head_;  // the sums of border_ and this head
  unsigned char* const slots_;
  int border_ = 0, step_ = 0, part_ = 0;  // of the next copy
  int fetched_ = 0, taken_ = 0;           // slots
};

// Columns of M / z in shared memory: chunks of four rows, permuted so that neither the scattered stores nor the loads of
// fragments meet in a bank.
struct Ratios {
  float* data;
  int stride;
  __device__ float* chunk(int column, int chunk) const {
    return data + column * stride + ((chunk ^ (column >> 3 << 1) ^ ((column & 1) << 2)) << 2);
  }
};

__global__ void __launch_bounds__(512) chain_kernel(const Shape shape, const Job* jobs, const Workspace workspace,
                                                    const int parts) {
  DYNAMIC_SHARED(shared);
  const int slabs = (shape.value_dim + kColumns - 1) / kColumns;
  const int slab = int(blockIdx.x) % slabs, kv_head = int(blockIdx.x) / slabs % shape.kv_heads;
  const Job& job = jobs[int(blockIdx.x) / slabs / shape.kv_heads];
  const int g = lane_id() / 4, t = lane_id() % 4;
  const int row = int(threadIdx.x) / 32 * 16 + g, column = slab * kColumns + 8 * t;
  const int rows = padded(shape.head_dim), columns = padded(shape.value_dim);
  const bool aligned = shape.value_dim % 4 == 0;
  const int count = shape.value_dim - column;

  Queue sums(shape, job, workspace.sums, parts, kv_head, row, column, shared);
  const Ratios ratios{reinterpret_cast<float*>(shared + kStages * 32 * blockDim.x), (shape.head_dim + 31) / 32 * 32};

  float memory[2][8];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const bool exists = job.absorbed && row + 8 * r < shape.head_dim;
    const long long at = ((long long)kv_head * shape.head_dim + row + 8 * r) * shape.value_dim + column;
    read(memory[r], job.matrix + at, exists ? count : 0, aligned);
  }

  for (int piece = 0; piece < job.pieces; ++piece) {
    const long long here = (long long)(job.first_piece + piece) * shape.kv_heads + kv_head;
    if (column < columns) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const long long at = (here * snapshot_terms(shape.element) * rows + row + 8 * r) * columns + column;
        if (shape.element == Element::Float32) {
          write(static_cast<float*>(workspace.snapshots) + at, memory[r], 8, true);
          continue;
        }
        bfloat16 high[8], low[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const Bfloat16Pair pair = split(memory[r][i]);
          high[i] = shape.element == Element::Float16 ? pair.high : from_float<bfloat16>(memory[r][i]);
          low[i] = pair.low;
        }
        write(static_cast<bfloat16*>(workspace.snapshots) + at, high);
        if (shape.element == Element::Float16) write(static_cast<bfloat16*>(workspace.snapshots) + at + rows * columns, low);
      }
    }
    if (piece >= job.borders) break;

    // ---- sum = B, then B - G (M / z): [tile][as Fragments say]; tile j holds columns 8t + 2j and 8t + 2j + 1.
    float sum[4][4];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float x[8];
      sums.take(x);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i / 2][2 * r + i % 2] = x[i];
    }
    if (sums.corrects(piece)) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float inverse = reciprocal(workspace.normalizers[here * rows + row + 8 * r]);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          ratios.chunk(8 * t + i, (row + 8 * r) / 4)[row % 4] = -memory[r][i] * inverse;
        }
      }
      __syncthreads();
#pragma unroll 1
      for (int step = 0; step < sums.steps(); ++step) {
        // Both operands give lane t the columns of G, rows of M / z, 4t to 4t + 3.
        float x[8];
        sums.take(x);
        const Fragments<float>::A a = {{{x[0], x[4], x[1], x[5]}, {x[2], x[6], x[3], x[7]}}};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float4 ratio = *reinterpret_cast<const float4*>(ratios.chunk(g / 2 * 8 + 2 * j + g % 2, 4 * step + t));
          const Fragments<float>::B b = {{{ratio.x, ratio.y}, {ratio.z, ratio.w}}};
          Fragments<float>::multiply(sum[j], a, b);
        }
      }
      __syncthreads();
    }

    bool finite = true;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const long long border = (long long)(job.first_border + piece) * shape.kv_heads + kv_head;
      const bool exists = row + 8 * r < shape.head_dim;
      const float unit = exists ? key_unit(workspace.key_sums[border * shape.head_dim + row + 8 * r]) : 0.0f;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        memory[r][i] = fmaf(sum[i / 2][2 * r + i % 2], unit, memory[r][i]);
        finite = finite && is_finite(memory[r][i]);
      }
    }
    if (!finite) note_failure(job.failure, last_token(job, shape, piece), kMemory);
  }

  if (job.borders == 0) return;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const long long at = ((long long)kv_head * shape.head_dim + row + 8 * r) * shape.value_dim + column;
    write(job.next_matrix + at, memory[r], row + 8 * r < shape.head_dim ? count : 0, aligned);
  }
}

}  // namespace

cudaError_t launch_chain(const Shape& shape, const Job* jobs, int job_count, const Workspace& workspace,
                         cudaStream_t stream) {
  if (job_count == 0) return cudaSuccess;
  const int slabs = (shape.value_dim + kColumns - 1) / kColumns;
  const int parts = workspace.whole_sums ? 1 : chunks(shape.segment_length);
  return launch(chain_kernel, dim3(unsigned(job_count * shape.kv_heads * slabs)),
                dim3(unsigned(kTile.threads(shape.head_dim))), size_t(kTile.shared_bytes(shape.head_dim)), stream, shape,
                jobs, workspace, parts);
}

}  // namespace infini::cuda

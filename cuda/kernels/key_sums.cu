// What a segment adds to z: the sum of sigma(k) over its tokens, for each component of each key/value head.
//
//   in   keys of the segment that ends at each border: from the cache up to job.open, then from the call
//   out  key_sums[border][kv_head][head_dim], float64
// A block owns one slab of columns, 64 bytes wide, of one head and border: four threads load a row, and blocks are many
// even where one segment is absorbed alone. sigma is float32. A thread adds those of the 8 rows that it loads at once in
// float32 and all else in float64, in an order that depends on positions in the segment only.
// Memory: every key is read once; N head_dim bytes per element of 1 byte, nothing else worth counting.
#include "dispatch.h"
#include "kernels/pieces.cuh"
#include "kernels/state.cuh"

namespace infini::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLanes = 4;                  // threads that share a row
constexpr int kRows = kThreads / kLanes;   // rows of a pass
constexpr int kPasses = 8;                 // passes whose loads are under way together
constexpr int kWarps = kThreads / 32;

template <class T>
__global__ void __launch_bounds__(kThreads, 2)
    key_sums_kernel(const Shape shape, const Job* jobs, const Place* borders, double* key_sums) {
  constexpr int kPerLane = 16 / int(sizeof(T)), kSlab = kLanes * kPerLane;
  SHARED_VARIABLE(sums, double[kWarps][kSlab]);
  const int slabs = (shape.head_dim + kSlab - 1) / kSlab;
  const int first = int(blockIdx.x % slabs) * kSlab;
  const int kv_head = int(blockIdx.x / slabs % shape.kv_heads);
  const int border = int(blockIdx.x / slabs / shape.kv_heads);
  const Job& job = jobs[borders[border].job];
  const auto keys = key_rows<T>(job, shape, piece_of(job, shape, borders[border].index), kv_head);

  const int lane = int(threadIdx.x) % kLanes, column = first + lane * kPerLane;
  const int columns = min(shape.head_dim - column, kPerLane);  // of this thread; may be negative
  const bool aligned = shape.head_dim % kPerLane == 0;
  double total[kPerLane] = {};
  for (int base = int(threadIdx.x) / kLanes; base < shape.segment_length; base += kRows * kPasses) {
    alignas(16) T key[kPasses][kPerLane];
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int position = base + pass * kRows;
      if (position >= shape.segment_length || columns <= 0) continue;
      const T* from = keys(position) + column;
      if (aligned) {
        *reinterpret_cast<int4*>(key[pass]) = __ldg(reinterpret_cast<const int4*>(from));
      } else {
        for (int i = 0; i < kPerLane; ++i) key[pass][i] = i < columns ? from[i] : from_float<T>(0.0f);
      }
    }
    float sum[kPerLane] = {};
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      if (base + pass * kRows >= shape.segment_length || columns <= 0) continue;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) sum[i] += sigma(to_float(key[pass][i]));
    }
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) total[i] += sum[i];
  }

#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    for (int distance = kLanes; distance < 32; distance *= 2) total[i] += __shfl_xor_sync(~0u, total[i], distance);
    if (int(threadIdx.x) % 32 < kLanes) sums[threadIdx.x / 32][lane * kPerLane + i] = total[i];
  }
  __syncthreads();
  if (int(threadIdx.x) < min(kSlab, shape.head_dim - first)) {
    double sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += sums[warp][threadIdx.x];
    key_sums[((long long)border * shape.kv_heads + kv_head) * shape.head_dim + first + threadIdx.x] = sum;
  }
}

}  // namespace

cudaError_t launch_key_sums(const Shape& shape, const Job* jobs, const Place* borders, int border_count,
                            const Workspace& workspace, cudaStream_t stream) {
  if (border_count == 0) return cudaSuccess;
  return dispatch_element(shape.element, [&](auto type) {
    using T = typename decltype(type)::type;
    const int slab = kLanes * 16 / int(sizeof(T)), slabs = (shape.head_dim + slab - 1) / slab;
    return launch(key_sums_kernel<T>, dim3(unsigned(border_count * shape.kv_heads * slabs)), dim3(kThreads), 0, stream,
                  shape, jobs, borders, workspace.key_sums);
  });
}

}  // namespace infini::cuda

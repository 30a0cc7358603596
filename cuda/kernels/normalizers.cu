// z from piece to piece: each head's running sum of key_sums, published before every piece.
//
//   in   job.normalizer (zeros unless job.absorbed), key_sums of the job's borders
//   out  normalizers[piece][kv_head][padded head_dim]: z as float32, zero beyond head_dim
//        job.next_normalizer, float64, if the job has borders; may be job.normalizer itself
// One block for each job and head, one thread for each component; z runs in float64. A z beyond kLargest, or not a
// number, fails the call at the last token of the segment that made it so.
#include "kernels/pieces.cuh"
#include "kernels/state.cuh"

namespace infini::cuda {
namespace {

constexpr int kAhead = 8;  // borders whose sums are loaded together
constexpr double kLargest = 0x1p117;  // the sum of 256 of them, each times at most 4 (row_scale), is within float32

__global__ void normalizers_kernel(const Shape shape, const Job* jobs, const Workspace workspace) {
  const int kv_head = int(blockIdx.x) % shape.kv_heads, i = int(threadIdx.x);
  const Job& job = jobs[blockIdx.x / shape.kv_heads];
  const int stride = padded(shape.head_dim);
  const bool exists = i < shape.head_dim;
  const long long component = (long long)kv_head * shape.head_dim + i;
  const double* key_sums =
      workspace.key_sums + (long long)job.first_border * shape.kv_heads * shape.head_dim + component;
  float* published = workspace.normalizers + ((long long)job.first_piece * shape.kv_heads + kv_head) * stride + i;

  double z = exists && job.absorbed ? job.normalizer[component] : 0.0;
  for (int first = 0; first < job.pieces; first += kAhead) {
    double added[kAhead];
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const int index = first + ahead;
      added[ahead] = exists && index < job.borders ? key_sums[(long long)index * shape.kv_heads * shape.head_dim] : 0.0;
    }
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const int index = first + ahead;
      if (index >= job.pieces) break;
      published[(long long)index * shape.kv_heads * stride] = float(z);
      z += added[ahead];
      if (index < job.borders && !(fabs(z) <= kLargest)) note_failure(job.failure, last_token(job, shape, index), kMemory);
    }
  }
  if (exists && job.borders > 0) job.next_normalizer[component] = z;
}

}  // namespace

cudaError_t launch_normalizers(const Shape& shape, const Job* jobs, int job_count, const Workspace& workspace,
                               cudaStream_t stream) {
  if (job_count == 0) return cudaSuccess;
  return launch(normalizers_kernel, dim3(unsigned(job_count * shape.kv_heads)), dim3(unsigned(padded(shape.head_dim))), 0,
                stream, shape, jobs, workspace);
}

}  // namespace infini::cuda

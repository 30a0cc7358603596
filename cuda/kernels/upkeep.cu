// Upkeep: what a round needs besides arithmetic. Both kernels take the time of their bytes.
//
//   append  the keys and values of the piece that stays open, from [tokens][kv_heads][dim] to the cache
//           [kv_heads][segment_length][dim]: at job.open if it is the job's first piece, else at 0
//   check   which input, query, key or value, is not finite, and at which token first; run once a call has failed
#include <algorithm>

#include "dispatch.h"
#include "kernels/features.cuh"
#include "kernels/pieces.cuh"

namespace infini::cuda {
namespace {

constexpr int kThreads = 256;

// ---- append

constexpr int kAppendTokens = 16;  // of a block

// Some tokens of a piece and where they go.
struct Tokens {
  long long first;  // of the job
  int position;     // of the first, in the segment
  int count, kv_heads, segment_length;
};

template <class Unit>
__device__ __forceinline__ void copy(const Tokens& tokens, const void* from, void* to, int units) {
  const Unit* source = static_cast<const Unit*>(from) + tokens.first * tokens.kv_heads * units;
  for (int i = int(threadIdx.x); i < tokens.count * tokens.kv_heads * units; i += kThreads) {
    const int unit = i % units, head = i / units % tokens.kv_heads, token = i / units / tokens.kv_heads;
    const long long row = (long long)head * tokens.segment_length + tokens.position + token;
    static_cast<Unit*>(to)[row * units + unit] = source[i];
  }
}

__device__ __forceinline__ void copy(const Tokens& tokens, const void* from, void* to, int dim, int element_bytes) {
  if (dim * element_bytes % 16 == 0) {
    copy<int4>(tokens, from, to, dim * element_bytes / 16);
  } else if (element_bytes == 4) {
    copy<uint32_t>(tokens, from, to, dim);
  } else {
    copy<uint16_t>(tokens, from, to, dim);
  }
}

__global__ void __launch_bounds__(kThreads)
    append(const __grid_constant__ Shape shape, const Job* jobs, int blocks_of_job) {
  const Job& job = jobs[blockIdx.x / unsigned(blocks_of_job)];
  if (job.pieces == job.borders) return;
  const Piece piece = piece_of(job, shape, job.pieces - 1);
  const int first = int(blockIdx.x % unsigned(blocks_of_job)) * kAppendTokens;
  if (first >= piece.count) return;
  const Tokens tokens = {(long long)piece.token + first, piece.start + first, min(piece.count - first, kAppendTokens),
                         shape.kv_heads, shape.segment_length};
  const int element_bytes = shape.element == Element::Float32 ? 4 : 2;
  copy(tokens, job.key, job.cached_keys, shape.head_dim, element_bytes);
  copy(tokens, job.value, job.cached_values, shape.value_dim, element_bytes);
}

// ---- check

constexpr int kCheckBytes = 32 * 1024;  // of each tensor, by a block

template <class T>
__device__ __forceinline__ void check_tensor(const Job& job, const void* tensor, int width, int slab, int site) {
  constexpr int kPerChunk = 16 / int(sizeof(T));
  if (tensor == nullptr) return;
  const T* const values = static_cast<const T*>(tensor);
  const bool aligned = reinterpret_cast<uintptr_t>(tensor) % 16 == 0;
  const long long size = (long long)job.tokens * width, begin = (long long)slab * (kCheckBytes / int(sizeof(T)));
  const long long end = min(begin + kCheckBytes / int(sizeof(T)), size);
  for (long long i = begin + int(threadIdx.x) * kPerChunk; i < end; i += kThreads * kPerChunk) {
    alignas(16) T chunk[kPerChunk];
    if (aligned && i + kPerChunk <= end) {
      *reinterpret_cast<int4*>(chunk) = *reinterpret_cast<const int4*>(values + i);
    } else {
      for (int k = 0; k < kPerChunk; ++k) chunk[k] = i + k < end ? values[i + k] : from_float<T>(0.0f);
    }
#pragma unroll
    for (int k = 0; k < kPerChunk; ++k) {
      if (!is_finite(to_float(chunk[k]))) {
        note_failure(job.failure, job.first_token + (i + k) / width, site);
        return;
      }
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    check(const __grid_constant__ Shape shape, const Job* jobs, long long slabs_of_job) {
  const Job& job = jobs[blockIdx.x / slabs_of_job];
  const int slab = int(blockIdx.x % slabs_of_job);
  check_tensor<T>(job, job.query, shape.heads * shape.head_dim, slab, kQuery);
  check_tensor<T>(job, job.key, shape.kv_heads * shape.head_dim, slab, kKey);
  check_tensor<T>(job, job.value, shape.kv_heads * shape.value_dim, slab, kValue);
}

}  // namespace

cudaError_t load_code() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(append));
}

cudaError_t launch_append(const Shape& shape, const Job* jobs, int job_count, int most_tokens, cudaStream_t stream) {
  const int blocks = (most_tokens + kAppendTokens - 1) / kAppendTokens;
  if (job_count == 0 || blocks == 0) return cudaSuccess;
  return launch(append, dim3(unsigned(job_count) * unsigned(blocks)), dim3(kThreads), 0, stream, shape, jobs, blocks);
}

cudaError_t launch_check(const Shape& shape, const Job* jobs, int job_count, long long most_tokens,
                         cudaStream_t stream) {
  const long long width = std::max(shape.heads * shape.head_dim, shape.kv_heads * shape.value_dim);
  return dispatch_element(shape.element, [&](auto type) {
    using T = typename decltype(type)::type;
    const long long slab = kCheckBytes / int(sizeof(T)), slabs = (most_tokens * width + slab - 1) / slab;
    if (job_count == 0 || slabs == 0) return cudaSuccess;
    return launch(check<T>, dim3(unsigned(job_count * slabs)), dim3(kThreads), 0, stream, shape, jobs, slabs);
  });
}

}  // namespace infini::cuda

// Which tokens a piece holds, and where the keys and values of its segment lie.
//
// Piece `index` of a job is what the job adds to one segment (core/segments.h): the first continues the open segment at
// position job.open, the others start at position 0. A segment's rows before job.open are in the job's cache, the
// others among the job's tokens. Rows of a cache at job.open and after hold nothing: they are never read.
#pragma once

#include "kernels/elements.cuh"
#include "launch.h"

namespace infini::cuda {

struct Piece {
  int token;  // its first, counted within the job
  int start;  // position of that token within its segment
  int count;  // tokens
};

__device__ __forceinline__ Piece piece_of(const Job& job, const Shape& shape, int index) {
  const long long length = shape.segment_length;
  const long long begin = index * length - job.open, end = begin + length;
  const int token = begin > 0 ? int(begin) : 0;
  return {token, index == 0 ? job.open : 0, (end < job.tokens ? int(end) : job.tokens) - token};
}

// The rows of one head of one segment by their position. They exist up to the last of the piece (start + count).
template <class T> struct SegmentRows {
  const T* cached;  // [rows before `fresh`][dim]
  const T* fresh;   // row of the piece's first token; one row every `stride` elements
  int open, dim, stride;

  __device__ const T* operator()(int position) const {
    const bool is_cached = position < open;
    const int row = is_cached ? position : position - open;
    return (is_cached ? cached : fresh) + (long long)row * (is_cached ? dim : stride);
  }
};

template <class T>
__device__ __forceinline__ SegmentRows<T> segment_rows(const void* cache, const void* tensor, int dim,
                                                       const Shape& shape, const Piece& piece, int kv_head) {
  const int stride = shape.kv_heads * dim;
  return {static_cast<const T*>(cache) + (long long)kv_head * shape.segment_length * dim,
          static_cast<const T*>(tensor) + (long long)piece.token * stride + kv_head * dim, piece.start, dim, stride};
}
template <class T>
__device__ __forceinline__ SegmentRows<T> key_rows(const Job& job, const Shape& shape, const Piece& piece,
                                                   int kv_head) {
  return segment_rows<T>(job.cached_keys, job.key, shape.head_dim, shape, piece, kv_head);
}
template <class T>
__device__ __forceinline__ SegmentRows<T> value_rows(const Job& job, const Shape& shape, const Piece& piece,
                                                     int kv_head) {
  return segment_rows<T>(job.cached_values, job.value, shape.value_dim, shape, piece, kv_head);
}

}  // namespace infini::cuda

// One function per PTX instruction that the kernels use, the two ways to name shared memory, and launch().
//
// The only file with inline assembly, and the only place where a build for the GPU (nvcc) and one for the host (a C++
// compiler and the emulation of test/cuda-on-host) differ.
//
// Everything is a warp's business: ldmatrix and mma are executed by all 32 lanes together. In the layouts below
// g = lane / 4 and t = lane % 4; a pair of 16-bit elements lies in one register, the lower index in the lower half.
//   mma m16n8k16 (bf16, f16)  A: a[0] = (g, 2t..), a[1] = (g+8, 2t..), a[2] = (g, 2t+8..), a[3] = (g+8, 2t+8..)
//                             B: b[0] = (k 2t.., n g), b[1] = (k 2t+8.., n g)
//   mma m16n8k8 (tf32)        A: a[0] = (g, t), a[1] = (g+8, t), a[2] = (g, t+4), a[3] = (g+8, t+4)
//                             B: b[0] = (k t, n g), b[1] = (k t+4, n g); the low 13 bits of an operand are ignored
//   both                      D: d[0], d[1] = (g, 2t), (g, 2t+1); d[2], d[3] = (g+8, 2t), (g+8, 2t+1), float32
//   ldmatrix x4               lane 8i+j gives the address of row j (8 elements, 16 bytes, 16-byte aligned) of matrix i;
//                             r[i] = (row g, columns 2t, 2t+1) of matrix i, or (rows 2t, 2t+1, column g) with _trans
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#ifndef __CUDACC__
// Declares the same functions in the same namespaces; each takes its caller's place in the source as a last, defaulted
// argument, for the reports.
#include "emulation/ptx.h"
#else

#include <map>
#include <mutex>
#include <tuple>
#include <type_traits>
#include <utility>

// The block's dynamic shared memory as `unsigned char* name`, 1024-byte aligned.
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
// A variable (or array: SHARED_VARIABLE(sums, float[32])) in shared memory, uninitialised.
#define SHARED_VARIABLE(name, ...) \
  using name##_type = __VA_ARGS__; \
  __shared__ name##_type name

namespace infini::cuda::ptx {

// A pointer into shared memory as the 32-bit address that cp.async and ldmatrix take.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Starts to copy `bytes` (0 to 16) from global memory and to zero the rest of the 16 bytes at `to`. Both are 16-byte
// aligned; with 0 bytes nothing is read.
__device__ __forceinline__ void cp_async16(uint32_t to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
// Makes a group of this thread's copies since the last commit.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N of this thread's latest groups are under way. Other threads see the bytes after a barrier.
template <int N> __device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// d += a b, float32 sums.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// 2^x to 2 ulp; subnormal operands and results are zero.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace infini::cuda::ptx

namespace infini::cuda {

// More than 48 KB of shared memory, a kernel's own variables included, must be asked for, once per kernel and device.
inline cudaError_t allow_shared_bytes(const void* kernel, size_t bytes) {
  static std::mutex& mutex = *new std::mutex;  // never destroyed: threads may launch until the process is gone
  static auto& allowed = *new std::map<std::pair<const void*, int>, size_t>;
  int device = 0;
  if (cudaError_t error = cudaGetDevice(&device)) return error;
  std::lock_guard lock(mutex);
  size_t& most = allowed[{kernel, device}];
  if (bytes <= most) return cudaSuccess;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
  if (error == cudaSuccess) most = bytes;
  return error;
}

// kernel<<<grid, block, shared_bytes, stream>>>(arguments...), spelled so that any C++ compiler reads it. The error is
// the launch's own, whatever this thread's latest error was.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   Arguments&&... arguments) {
  const void* const address = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > 0) {
    if (cudaError_t error = allow_shared_bytes(address, shared_bytes)) return error;
  }
  std::tuple<std::remove_cv_t<Parameters>...> values(std::forward<Arguments>(arguments)...);
  return std::apply(
      [&](auto&... value) {
        void* pointers[] = {&value..., nullptr};
        return cudaLaunchKernel(address, grid, block, pointers, shared_bytes, stream);
      },
      values);
}

}  // namespace infini::cuda

#endif

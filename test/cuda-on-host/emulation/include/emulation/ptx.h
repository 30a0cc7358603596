// The host's side of cuda/ptx.cuh, which says what each function does.
#pragma once

#include <functional>
#include <tuple>
#include <utility>

#include "emulation/device.h"
#include "emulation/runtime_api.h"

#define DYNAMIC_SHARED(name) unsigned char* const name = infini::emulation::dynamic_shared()
#define SHARED_VARIABLE(name, ...)                                                   \
  static char name##_tag;                                                            \
  using name##_type = __VA_ARGS__;                                                   \
  name##_type& name = *static_cast<name##_type*>(infini::emulation::shared_variable( \
      &name##_tag, sizeof(name##_type), alignof(name##_type), infini::emulation::Location::current()))

namespace infini::cuda::ptx {

using Where = emulation::Location;

uint32_t shared_address(const void* pointer, const Where& where = Where::current());
void cp_async16(uint32_t to, const void* from, int bytes, const Where& where = Where::current());
void cp_async_commit();
void cp_async_wait_group(int pending, const Where& where);
template <int N> void cp_async_wait(const Where& where = Where::current()) { cp_async_wait_group(N, where); }
void ldmatrix_x4(uint32_t (&r)[4], uint32_t address, const Where& where = Where::current());
void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t address, const Where& where = Where::current());
void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const Where& where = Where::current());
void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const Where& where = Where::current());
void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const Where& where = Where::current());
float exp2_approx(float x);

}  // namespace infini::cuda::ptx

namespace infini::emulation {

// Runs `thread` once for every thread of the grid.
cudaError_t launch_grid(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                        std::function<void()> thread);

}  // namespace infini::emulation

namespace infini::cuda {

template <class... Parameters, class... Arguments> cudaError_t launch(void (*kernel)(Parameters...), dim3 grid,
                                                                      dim3 block, size_t shared_bytes,
                                                                      cudaStream_t stream, Arguments&&... arguments) {
  const void* address = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > 0) {
    const cudaError_t error =
        cudaFuncSetAttribute(address, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  // Every thread gets its own copy of the arguments, as on the device.
  return emulation::launch_grid(address, grid, block, shared_bytes, stream,
                                [kernel, copy = std::tuple<std::remove_cv_t<Parameters>...>(
                                             std::forward<Arguments>(arguments)...)] { std::apply(kernel, copy); });
}

}  // namespace infini::cuda

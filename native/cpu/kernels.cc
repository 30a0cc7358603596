// Compiled once for each SIMD level, into a namespace of that name.
#include "cpu/attention.h"
#include "cpu/dense.h"
#include "cpu/floor_kernels.h"
#include "cpu/state.h"

#define INFINI_TEXT_OF(name) #name
#define INFINI_TEXT(name) INFINI_TEXT_OF(name)

namespace infini::cpu::INFINI_SIMD_LEVEL {

const Kernels kernels = {INFINI_TEXT(INFINI_SIMD_LEVEL), find_non_finite, forward, retrieve, residual, absorb,
                         linear, decode_strided, normalize, multiply_adds, multiply_tiles,
                         read_through, triad};

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

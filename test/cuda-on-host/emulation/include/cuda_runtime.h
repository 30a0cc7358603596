// Stand-in for CUDA's header of the same name: first in the include path where kernels are built for the host.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <string>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
// No __shared__, on purpose: kernels say SHARED_VARIABLE and DYNAMIC_SHARED, so that the emulation owns the bytes.

#include "emulation/intrinsics.h"
#include "emulation/runtime_api.h"
#include "emulation/vector_types.h"

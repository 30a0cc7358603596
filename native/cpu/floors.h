// The machine's limits, measured on the spot with the chosen SIMD level: what benchmarks hold their figures against.
#pragma once

#include <cstdint>

namespace infini::cpu {

double peak_flops(int threads);  // multiply-adds of float32 in registers, operations a second
double read_bandwidth(int threads, int64_t bytes);  // bytes a second, reading so many bytes again and again

}  // namespace infini::cpu

// The machine's limits, measured on the spot with the chosen SIMD level: what benchmarks hold their figures against.
#pragma once

#include <cstdint>

namespace infini::cpu {

double peak_flops(int threads);  // multiply-adds of float32 in registers, operations a second
double tile_flops(int threads);  // products of bfloat16 on tiles, operations a second; 0 where there are none
double read_bandwidth(int threads, int64_t bytes);   // bytes a second, reading so many bytes again and again
double triad_bandwidth(int threads, int64_t bytes);  // the same, reading two thirds and writing one

}  // namespace infini::cpu

// Which devices this process has, and the one engine of each: the only place that knows every backend.
#pragma once

#include <string>
#include <vector>

#include "core/engine.h"

namespace infini {

// Never throws for want of a GPU, but as engine_for('cpu') does. `threads`: what the CPU engine uses unless told otherwise.
std::vector<DeviceInfo> list_devices(int threads);

// Why there is no CUDA device, in one sentence; empty when there is one.
std::string cuda_absence();

// 'auto', 'cpu', 'cuda' or 'cuda:N'. Throws Error(NoDevice) that says why, for 'cpu' when INFINI_CPU names no level;
// Error(OutOfRange) for other names.
// The engine lives as long as the process: its threads may outlast whoever asked for it.
Engine& engine_for(const std::string& id, int threads);

// The processor's limits (cpu/floors.h), for benchmarks: takes a tenth of a second each.
double cpu_peak_flops(int threads);
double cpu_tile_flops(int threads);
double cpu_read_bandwidth(int threads, int64_t bytes);
double cpu_triad_bandwidth(int threads, int64_t bytes);

}  // namespace infini

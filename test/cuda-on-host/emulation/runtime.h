// The runtime's own state: errors, and what a stream does with work.
#pragma once

#include <functional>
#include <string>

#include "emulation/runtime_api.h"

namespace infini::emulation {

// The error after which every call fails, or cudaSuccess.
cudaError_t sticky_error();
// Makes it this thread's latest error, and returns it.
cudaError_t note(cudaError_t error);
// An error that the emulation found: kept for last_report(), and thrown where the settings say so.
cudaError_t raise(cudaError_t error, const std::string& report);
cudaError_t raise_sticky(cudaError_t error, const std::string& report);

// Does the work now, or when the host waits for the stream, or when the graph that is being captured is launched.
// `ready`: see queue.h.
cudaError_t enqueue(cudaStream_t stream, std::function<cudaError_t()> work, std::function<bool()> ready = {});
// Does all that streams still have to do; of one stream, unless it is capturing.
cudaError_t finish_all();
cudaError_t finish(cudaStream_t stream);
// Whether a capture is under way that this call would break.
bool breaks_capture();

// What cudaFuncSetAttribute allowed: of dynamic shared memory, and with the kernel's own variables.
size_t shared_limit(const void* kernel);
size_t shared_total_limit(const void* kernel);

// Whether this is an allocation that a test wants to fail: of memory, or of what CUDA makes of it.
bool runs_out();

// Counts a launch; true when it is the one that shall fail.
bool launch_is_doomed();

}  // namespace infini::emulation

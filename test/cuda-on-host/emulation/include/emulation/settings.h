// How the emulation runs kernels and reports what it finds: for tests, and for the emulated addon.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace infini::emulation {

// Which warp goes on when one has to wait. Priority gives warps random priorities that change rarely, so that they
// drift far apart; Random keeps them close together and finds the least.
enum class Schedule : uint8_t { InOrder, Reverse, Random, Priority };

// When the bytes of a cp.async arrive: at once, at the wait for them, or the one or the other by chance.
enum class Async : uint8_t { Eager, Lazy, Random };

// When work of a stream is done: at once, when the host waits for it, or by chance at some time until then.
enum class Lazy : uint8_t { No, Yes, Random };

struct Settings {
  Schedule schedule = Schedule::InOrder;
  Async async = Async::Lazy;
  uint64_t seed = 1;
  unsigned coresident = 1;    // blocks alive at once
  bool poison = true;         // shared memory and the targets of cp.async hold 0xFF until written: NaN, or -1
  bool racecheck = true;      // where kernels report their accesses: in the race build
  bool throw_errors = false;  // an error throws EmulationError; else cudaErrorLaunchFailure, sticky, and last_report()
  Lazy lazy_streams;          // No, or the environment's INFINI_EMULATED_LAZY=1 or 2
  bool signals = false;       // handlers that explain a SIGSEGV, and a watchdog: for test programs, never inside Node
  unsigned watchdog_seconds = 60;
  size_t stack_bytes;    // of a fiber
  size_t device_memory;  // cudaMalloc fails beyond; 1 GiB, or the environment's INFINI_EMULATED_MEMORY

  Settings();
};
extern Settings settings;

struct EmulationError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The latest error found, "" at first.
std::string last_report();

struct Statistics {
  uint64_t launches, blocks, switches, collectives;
  uint64_t ldmatrix_phases, ldmatrix_conflicts;  // eight rows each; rows beyond the first in the same bank
  uint64_t allocations, allocated_bytes;         // device memory that is live now
  uint64_t host_allocations;                     // pinned memory that is live now
};
Statistics statistics();

// The launch after `launches` more fails with cudaErrorLaunchFailure, sticky. INFINI_EMULATED_FAULT=n: the n-th does.
// INFINI_EMULATED_COPY_FAULT=n: the n-th asynchronous copy does.
void inject_fault(uint64_t launches);
// Takes back a sticky error; device memory stays.
void clear_errors();

}  // namespace infini::emulation

// What a kernel finds around it: its place in the grid, barriers, warp collectives, atomics, shared memory. Calls of a
// kernel's fiber into the emulation; each takes the caller's place in the source for the reports.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "emulation/location.h"
#include "emulation/vector_types.h"

// Plain globals, rewritten whenever another fiber goes on.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace infini::emulation {

// Ends the kernel with this report.
[[noreturn]] void fail(const std::string& what, const Location& where);

enum class Reduction : uint8_t { None, Count, And, Or };
int barrier(Reduction reduction, int predicate, const Location& where);

void warp_barrier(uint32_t mask, const Location& where);

enum class Shuffle : uint8_t { Index, Up, Down, Xor };
uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int argument, int width, const Location& where);

// A bit per lane of the mask whose predicate is true.
uint32_t ballot(const char* name, uint32_t mask, bool predicate, const Location& where);

// Reads, changes and writes *address, returning what was read. CompareExchange writes where it was `compare`.
enum class Atomic : uint8_t { Add, Min, Max, Exchange, CompareExchange };
template <class T> T atomic(Atomic operation, T* address, T value, T compare, const Location& where);

void fence();

// A read by a function of this header's, in the name of the kernel's line.
void note_read(const void* address, size_t bytes, const Location& where);

unsigned char* dynamic_shared();
// The address that `tag` (one per variable and kernel instance) has in this block.
void* shared_variable(const void* tag, size_t bytes, size_t alignment, const Location& where);

template <class T>
T shuffle_value(Shuffle kind, uint32_t mask, T value, int argument, int width, const Location& where) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = shuffle(kind, mask, bits, argument, width, where);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T, class... Allowed>
concept OneOf = (std::same_as<T, Allowed> || ...);

}  // namespace infini::emulation

// The calls that -fsanitize=thread puts before every access of a kernel, without the library that belongs to them.
// This file and the rest of the emulation are never built with that option.
#include "sanitizer.h"

#ifndef INFINI_ADDRESS_SANITIZER  // whose compiler has these functions built in

#include <cstring>

#include "device_memory.h"
#include "machine.h"
#include "races.h"
#include "report.h"

namespace infini::emulation {

namespace {

void check_shared(Block& block, size_t offset, size_t bytes, Access kind, bool aligned, Site site) {
  if (aligned && offset % bytes) fail("misaligned access, " + block.arena->describe(offset), site);
  if (!block.arena->holds(offset, bytes)) fail("access out of bounds, " + block.arena->describe(offset), site);
  SharedRaces& races = *block.races;
  races.access(kind, *current_thread, offset, bytes, site);
  const auto padding = bytes > 4 ? SharedRaces::Padding::Possible : SharedRaces::Padding::None;
  if (kind == Access::Read) races.check_written(*current_thread, offset, bytes, padding, site);
}

void check_global(const void* address, size_t bytes, Access kind, bool aligned, Site site) {
  if (aligned && reinterpret_cast<uintptr_t>(address) % bytes) {
    fail("misaligned access, " + describe_device_address(address), site);
  }
  check_device_range(address, bytes, kind == Access::Read ? "read" : "write", site);
  global_races.access(kind, *current_thread, address, bytes, site);
}

void on_access(const void* address, size_t bytes, Access kind, const void* return_address, bool aligned) {
  Thread* self = current_thread;
  if (!self || machine.observing || !bytes || !self->block->races) return;
  Block& block = *self->block;
  const size_t offset = block.arena->offset(address);
  const bool shared = block.arena->maps(offset);
  if (!shared && !is_device_address(address)) return;
  machine.observing = true;
  const Site site = site_of(return_address);
  if (shared) {
    check_shared(block, offset, bytes, kind, aligned, site);
  } else {
    check_global(address, bytes, kind, aligned, site);
  }
  machine.observing = false;
}

}  // namespace

}  // namespace infini::emulation

using infini::emulation::Access;
using infini::emulation::on_access;

extern "C" {

void __tsan_init() { infini::emulation::kernels_are_instrumented = true; }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

#define INFINI_HOOKS(bytes)                                                                                    \
  void __tsan_read##bytes(void* p) { on_access(p, bytes, Access::Read, __builtin_return_address(0), true); }   \
  void __tsan_write##bytes(void* p) { on_access(p, bytes, Access::Write, __builtin_return_address(0), true); } \
  void __tsan_unaligned_read##bytes(void* p) {                                                                 \
    on_access(p, bytes, Access::Read, __builtin_return_address(0), false);                                     \
  }                                                                                                            \
  void __tsan_unaligned_write##bytes(void* p) {                                                                \
    on_access(p, bytes, Access::Write, __builtin_return_address(0), false);                                    \
  }
INFINI_HOOKS(1)
INFINI_HOOKS(2)
INFINI_HOOKS(4)
INFINI_HOOKS(8)
INFINI_HOOKS(16)
#undef INFINI_HOOKS

void __tsan_read_range(void* p, size_t bytes) { on_access(p, bytes, Access::Read, __builtin_return_address(0), false); }
void __tsan_write_range(void* p, size_t bytes) {
  on_access(p, bytes, Access::Write, __builtin_return_address(0), false);
}

// clang's, for copies of structs; g++ reports those by range.
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  on_access(from, bytes, Access::Read, __builtin_return_address(0), false);
  on_access(to, bytes, Access::Write, __builtin_return_address(0), false);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, size_t bytes) {
  on_access(from, bytes, Access::Read, __builtin_return_address(0), false);
  on_access(to, bytes, Access::Write, __builtin_return_address(0), false);
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, size_t bytes) {
  on_access(to, bytes, Access::Write, __builtin_return_address(0), false);
  return std::memset(to, value, bytes);
}

// Atomics of the host's code in the same file: done, and nothing more.
#define INFINI_ATOMIC(bits, type)                                                                                   \
  type __tsan_atomic##bits##_load(const type* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }              \
  void __tsan_atomic##bits##_store(type* p, type v, int) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }              \
  type __tsan_atomic##bits##_exchange(type* p, type v, int) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); } \
  type __tsan_atomic##bits##_fetch_add(type* p, type v, int) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); } \
  type __tsan_atomic##bits##_fetch_sub(type* p, type v, int) { return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST); } \
  int __tsan_atomic##bits##_compare_exchange_strong(type* p, type* expected, type v, int, int) {                    \
    return __atomic_compare_exchange_n(p, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                  \
  }                                                                                                                 \
  int __tsan_atomic##bits##_compare_exchange_weak(type* p, type* expected, type v, int, int) {                      \
    return __atomic_compare_exchange_n(p, expected, v, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                   \
  }
INFINI_ATOMIC(8, uint8_t)
INFINI_ATOMIC(16, uint16_t)
INFINI_ATOMIC(32, uint32_t)
INFINI_ATOMIC(64, uint64_t)
#undef INFINI_ATOMIC

}  // extern "C"

#endif

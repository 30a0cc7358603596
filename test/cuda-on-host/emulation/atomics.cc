// Atomics, fences, and reads that the kernel makes through a function of the stand-in headers.
#include "device_memory.h"
#include "machine.h"
#include "races.h"
#include "report.h"

namespace infini::emulation {

namespace {

// A thread that keeps hitting one address waits for another to change it. Giving way more often than that would act
// as a barrier and hide a missing one.
constexpr unsigned kSpins = 16;

void let_others_run(Thread& self, const void* address) {
  if (self.spin_address != address) {
    self.spin_address = address;
    self.spins = 0;
  }
  if (++self.spins >= kSpins) {
    self.spins = 0;
    yield();
  } else {
    maybe_preempt();
  }
}

// What comes before the operation itself, which nothing may come between.
void begin(const void* address, size_t bytes, const Location& where) {
  Thread& self = *current_thread;
  Block& block = *self.block;
  self.activity = "an atomic";
  self.where = where;
  let_others_run(self, address);
  if (reinterpret_cast<uintptr_t>(address) % bytes) fail("misaligned atomic", where);
  const size_t offset = block.arena->offset(address);
  if (block.arena->maps(offset)) {
    if (!block.arena->holds(offset, bytes)) fail("atomic out of bounds, " + block.arena->describe(offset), where);
    if (block.races) {
      block.races->check_written(self, offset, bytes, SharedRaces::Padding::None, site_of(where));
      block.races->access(Access::Atomic, self, offset, bytes, site_of(where));
    }
  } else {
    if (!is_device_range(address, bytes)) check_device_range(address, bytes, "atomic", site_of(where));
    if (block.races) {
      global_races.synchronize(self, address);
      global_races.access(Access::Atomic, self, address, bytes, site_of(where));
    }
  }
}

template <class T> T combine(Atomic operation, T old, T value, T compare) {
  switch (operation) {
    case Atomic::Add: return old + value;
    case Atomic::Min: return value < old ? value : old;
    case Atomic::Max: return old < value ? value : old;
    case Atomic::CompareExchange: return old == compare ? value : old;
    case Atomic::Exchange: return value;
  }
  return value;
}

}  // namespace

template <class T> T atomic(Atomic operation, T* address, T value, T compare, const Location& where) {
  begin(address, sizeof(T), where);
  const T old = *address;
  *address = combine(operation, old, value, compare);
  if (*address != old) machine.idle_rounds = 0;
  return old;
}

template int atomic(Atomic, int*, int, int, const Location&);
template unsigned atomic(Atomic, unsigned*, unsigned, unsigned, const Location&);
template long long atomic(Atomic, long long*, long long, long long, const Location&);
template unsigned long long atomic(Atomic, unsigned long long*, unsigned long long, unsigned long long,
                                   const Location&);
template float atomic(Atomic, float*, float, float, const Location&);
template double atomic(Atomic, double*, double, double, const Location&);

void fence() {
  Block& block = *current_thread->block;
  if (block.order) ++block.order->fences;
  maybe_preempt();
}

void note_read(const void* address, size_t bytes, const Location& where) {
  Thread& self = *current_thread;
  if (reinterpret_cast<uintptr_t>(address) % bytes) fail("misaligned __ldg", where);
  if (!is_device_range(address, bytes)) check_device_range(address, bytes, "__ldg", site_of(where));
  if (self.block->races) global_races.access(Access::Read, self, address, bytes, site_of(where));
}

}  // namespace infini::emulation

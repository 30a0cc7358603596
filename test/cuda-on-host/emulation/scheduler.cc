// Which fiber goes on. A fiber runs until it has to wait; every further switch could hide a race between warps.
#include <bit>

#include "machine.h"
#include "report.h"

namespace infini::emulation {

namespace {

// All threads that are left spin on atomics, round after round, and nobody is there to change what they wait for.
constexpr uint64_t kIdleRounds = 10000;

Warp* first_warp() {
  for (size_t word = 0; word < machine.runnable.size(); ++word) {
    if (uint64_t bits = machine.runnable[word]) return machine.warps[word * 64 + size_t(std::countr_zero(bits))];
  }
  return nullptr;
}

Warp* last_warp() {
  for (size_t word = machine.runnable.size(); word-- > 0;) {
    if (uint64_t bits = machine.runnable[word]) return machine.warps[word * 64 + 63 - size_t(std::countl_zero(bits))];
  }
  return nullptr;
}

template <class Visit> void each_warp(Visit visit) {
  for (size_t word = 0; word < machine.runnable.size(); ++word) {
    for (uint64_t bits = machine.runnable[word]; bits; bits &= bits - 1) {
      visit(*machine.warps[word * 64 + size_t(std::countr_zero(bits))]);
    }
  }
}

Warp* random_warp() {
  unsigned count = 0;
  each_warp([&](Warp&) { ++count; });
  if (!count) return nullptr;
  unsigned chosen = machine.random() % count;
  Warp* warp = nullptr;
  each_warp([&](Warp& candidate) {
    if (chosen-- == 0) warp = &candidate;
  });
  return warp;
}

Warp* first_by_priority() {
  Warp* warp = nullptr;
  each_warp([&](Warp& candidate) {
    if (!warp || candidate.priority > warp->priority) warp = &candidate;
  });
  if (warp && machine.random() % 256 == 0) warp->priority = machine.random();
  return warp;
}

Thread* choose_lane(const Warp& warp) {
  const uint32_t runnable = warp.runnable;
  switch (settings.schedule) {
    case Schedule::InOrder: return warp.lanes[std::countr_zero(runnable)];
    case Schedule::Reverse: return warp.lanes[31 - std::countl_zero(runnable)];
    default: {
      const int turn = int(machine.random() & 31);
      return warp.lanes[(std::countr_zero(std::rotr(runnable, turn)) + turn) & 31];
    }
  }
}

const Warp* choose_warp(const Warp* preferred) {
  switch (settings.schedule) {
    case Schedule::InOrder: return preferred && preferred->runnable ? preferred : first_warp();
    case Schedule::Reverse: return last_warp();
    case Schedule::Random: return random_warp();
    case Schedule::Priority: return first_by_priority();
  }
  return nullptr;
}

}  // namespace

void sleep(Thread& thread) {
  Warp& warp = *thread.warp;
  warp.runnable &= ~(1u << thread.lane);
  if (!warp.runnable) machine.runnable[warp.place / 64] &= ~(uint64_t(1) << warp.place % 64);
}

void wake(Warp& warp, uint32_t lanes) {
  if (!lanes) return;
  warp.runnable |= lanes;
  machine.runnable[warp.place / 64] |= uint64_t(1) << warp.place % 64;
}

Thread* next_thread(const Warp* preferred) {
  for (;;) {
    if (const Warp* warp = choose_warp(preferred)) return choose_lane(*warp);
    if (machine.yielded.empty() || ++machine.idle_rounds > kIdleRounds) return nullptr;
    for (Thread* thread : machine.yielded) wake(*thread->warp, 1u << thread->lane);
    machine.yielded.clear();
  }
}

void resume(Context& from, Thread& thread, bool last) {
  current_thread = &thread;
  threadIdx = thread.index;
  blockIdx = thread.block->index;
  ++machine.statistics.switches;
  switch_context(from, thread.context, last);
}

void reschedule() {
  Thread& self = *current_thread;
  Thread* next = next_thread(self.warp);
  if (next == &self) return;
  if (next) {
    resume(self.context, *next);
  } else {
    current_thread = nullptr;
    switch_context(self.context, machine.host, false);
  }
}

void yield() {
  Thread& self = *current_thread;
  sleep(self);
  machine.yielded.push_back(&self);
  reschedule();
}

void maybe_preempt() {
  const bool chance = settings.schedule == Schedule::Random || settings.schedule == Schedule::Priority;
  if (chance && machine.random() % 4 == 0) reschedule();
}

}  // namespace infini::emulation

// What the lanes of a warp do together. A lane leaves a pointer to its operands, which lie on its own stack, and waits;
// the last one to come does the work of all.
#include <bit>
#include <cstdio>

#include "machine.h"
#include "races.h"
#include "report.h"

namespace infini::emulation {

namespace {

template <class Visit> void each_lane(uint32_t mask, Visit visit) {
  for (; mask; mask &= mask - 1) visit(std::countr_zero(mask));
}

std::string hex(uint32_t mask) {
  char text[16];
  std::snprintf(text, sizeof text, "%08x", mask);
  return text;
}

// Two groups of lanes that wait for each other will do so for ever.
void check_divergence(const Warp& warp) {
  for (const Meeting& a : warp.meetings) {
    for (const Meeting& b : warp.meetings) {
      if (&a >= &b || !(a.arrived & b.mask) || !(b.arrived & a.mask)) continue;
      fail("divergent warp: lanes " + hex(a.arrived) + " are in " + a.name + " at " + name(a.where) + " while lanes " +
           hex(b.arrived) + " are in " + b.name + " at " + name(b.where));
    }
  }
}

bool same_place(const Location& a, const Location& b) { return a.line() == b.line() && a.column() == b.column(); }

struct ShuffleOperands {
  Shuffle kind;
  uint64_t value, result;
  int argument, width;
};

// The lane to read from; -1: out of the section, the lane keeps its own.
int source_lane(const ShuffleOperands& operands, int lane) {
  const int argument = operands.argument, first = lane & ~(operands.width - 1), end = first + operands.width;
  switch (operands.kind) {
    case Shuffle::Index: return first | (argument & (operands.width - 1));
    case Shuffle::Up: return lane - argument < first ? -1 : lane - argument;
    case Shuffle::Down: return lane + argument >= end ? -1 : lane + argument;
    case Shuffle::Xor: return (lane ^ argument) >= end ? -1 : lane ^ argument;
  }
  return -1;
}

void do_shuffle(void** operands, uint32_t mask, const Location& where) {
  each_lane(mask, [&](int lane) {
    auto& own = *static_cast<ShuffleOperands*>(operands[lane]);
    const int source = source_lane(own, lane);
    if (source >= 0 && !(mask >> source & 1)) {
      fail("shuffle: lane " + std::to_string(lane) + " reads lane " + std::to_string(source) +
               ", which is not in the mask",
           where);
    }
    own.result = source < 0 ? own.value : static_cast<ShuffleOperands*>(operands[source])->value;
  });
}

struct BallotOperands {
  bool predicate;
  uint32_t result;
};

void do_ballot(void** operands, uint32_t mask, const Location&) {
  uint32_t result = 0;
  each_lane(mask,
            [&](int lane) { result |= uint32_t(static_cast<BallotOperands*>(operands[lane])->predicate) << lane; });
  each_lane(mask, [&](int lane) { static_cast<BallotOperands*>(operands[lane])->result = result; });
}

// The only collective that orders memory: shuffles, ballots, ldmatrix and mma do not.
void do_warp_barrier(void**, uint32_t mask, const Location&) {
  Thread& self = *current_thread;
  if (self.block->races) self.block->races->join_lanes(self.warp->number, mask);
}

}  // namespace

void collective(Collective operation, const char* name_, uint32_t mask, void* operands, Alignment alignment,
                const Location& where) {
  Thread& self = *current_thread;
  Warp& warp = *self.warp;
  const uint32_t own = 1u << self.lane;
  ++machine.statistics.collectives;
  self.activity = name_;
  self.where = where;
  if (!(mask & own)) fail(std::string(name_) + ": the calling lane is not in the mask " + hex(mask), where);
  if (mask & ~warp.live) {
    fail(std::string(name_) + ": lanes " + hex(mask & ~warp.live) + " of the mask have exited or do not exist", where);
  }

  size_t at = 0;
  for (; at < warp.meetings.size(); ++at) {
    const Meeting& meeting = warp.meetings[at];
    if (meeting.operation == operation && meeting.mask == mask && !(meeting.arrived & own)) break;
  }
  if (at == warp.meetings.size()) {
    Meeting& added = warp.meetings.emplace_back();
    added.operation = operation;
    added.name = name_;
    added.mask = mask;
    added.arrived = 0;
    added.where = where;
  }
  Meeting& meeting = warp.meetings[at];
  if (alignment == Alignment::Aligned && !same_place(meeting.where, where)) {
    fail(std::string("divergent warp: ") + name_ + " is .aligned, but other lanes execute it at " + name(meeting.where),
         where);
  }
  meeting.arrived |= own;
  meeting.operands[self.lane] = operands;
  if (warp.meetings.size() > 1) check_divergence(warp);
  if (meeting.arrived != mask) {
    sleep(self);
    reschedule();
    return;
  }

  operation(meeting.operands, mask, where);
  warp.meetings.erase(warp.meetings.begin() + ptrdiff_t(at));
  wake(warp, mask & ~own);
  machine.idle_rounds = 0;
  maybe_preempt();
}

void warp_barrier(uint32_t mask, const Location& where) {
  collective(do_warp_barrier, "__syncwarp", mask, nullptr, Alignment::Any, where);
}

uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int argument, int width, const Location& where) {
  constexpr const char* kNames[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
  if (width < 1 || width > 32 || (width & (width - 1))) {
    fail("shuffle: the width is not a power of two up to 32", where);
  }
  ShuffleOperands operands{kind, value, 0, argument, width};
  collective(do_shuffle, kNames[int(kind)], mask, &operands, Alignment::Any, where);
  return operands.result;
}

uint32_t ballot(const char* name_, uint32_t mask, bool predicate, const Location& where) {
  BallotOperands operands{predicate, 0};
  collective(do_ballot, name_, mask, &operands, Alignment::Any, where);
  return operands.result;
}

}  // namespace infini::emulation

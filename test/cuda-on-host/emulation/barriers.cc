// __syncthreads and its forms that reduce a predicate.
#include <algorithm>

#include "machine.h"
#include "races.h"
#include "report.h"

namespace infini::emulation {

namespace {

void complete(Block& block) {
  Barrier& barrier = block.barrier;
  if (block.races) block.races->next_epoch();
  const int count = barrier.count, all = int(barrier.waiting.size());
  for (Thread* thread : barrier.waiting) {
    switch (thread->reduction) {
      case Reduction::None: break;
      case Reduction::Count: thread->barrier_result = count; break;
      case Reduction::And: thread->barrier_result = count == all; break;
      case Reduction::Or: thread->barrier_result = count > 0; break;
    }
    wake(*thread->warp, 1u << thread->lane);
  }
  barrier.waiting.clear();
  barrier.count = 0;
  machine.idle_rounds = 0;
}

}  // namespace

int barrier(Reduction reduction, int predicate, const Location& where) {
  Thread& self = *current_thread;
  Block& block = *self.block;
  Barrier& barrier = block.barrier;
  self.activity = "__syncthreads";
  self.where = where;
  self.reduction = reduction;
  if (!barrier.waiting.empty()) {
    const Thread& other = *barrier.waiting.front();
    if (other.where.line() != where.line() || other.where.column() != where.column() || other.reduction != reduction) {
      fail("divergent barrier: thread " + std::to_string(other.number) + " waits in __syncthreads at " +
               name(other.where) + ", thread " + std::to_string(self.number),
           where);
    }
  }
  barrier.waiting.push_back(&self);
  barrier.count += predicate != 0;
  sleep(self);
  if (barrier.waiting.size() == block.live) complete(block);
  reschedule();
  return self.barrier_result;
}

void complete_barrier_without(Block& block) {
  if (!block.barrier.waiting.empty() && block.barrier.waiting.size() == block.live) complete(block);
}

}  // namespace infini::emulation

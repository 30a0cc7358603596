// A launch: blocks one after another (or several at once), a fiber per thread, until all have run or one has failed.
#include <algorithm>
#include <map>

#include "device_memory.h"
#include "emulation/ptx.h"
#include "machine.h"
#include "races.h"
#include "report.h"
#include "runtime.h"
#include "signals.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace infini::emulation {

Machine& machine = *new Machine;
Thread* current_thread = nullptr;
bool kernels_are_instrumented = false;
FairMutex& device_mutex = *new FairMutex;

Block::Block() = default;
Block::~Block() = default;

namespace {

std::string waiting_threads() {
  std::map<std::string, std::pair<unsigned, const Thread*>> groups;
  for (const auto& block : machine.blocks) {
    if (!block->active) continue;
    for (const Thread& thread : block->threads) {
      auto& [count, first] =
          groups[thread.done ? "have exited" : "are in " + std::string(thread.activity) + " at " + name(thread.where)];
      if (count++ == 0) first = &thread;
    }
  }
  std::string text;
  for (const auto& [place, group] : groups) {
    text += "\n  " + std::to_string(group.first) + " threads " + place + ", the first: " + name(*group.second);
  }
  return text;
}

void exit_thread(Thread& self) {
  Block& block = *self.block;
  Warp& warp = *self.warp;
  sleep(self);
  self.done = true;
  warp.live &= ~(1u << self.lane);
  --block.live;
  machine.idle_rounds = 0;
  for (const Meeting& meeting : warp.meetings) {
    if (meeting.mask >> self.lane & 1) {
      fail("a lane exits while others of its warp wait for it in " + std::string(meeting.name), meeting.where);
    }
  }
  complete_barrier_without(block);
}

void fiber_main() {
  entered();
  std::string thrown;
  try {
    (*machine.body)();
  } catch (const std::exception& exception) {
    thrown = std::string("the kernel threw an exception: ") + exception.what();
  }
  if (!thrown.empty()) fail(thrown);
  Thread& self = *current_thread;
  exit_thread(self);
  // The host goes on when a block is through: it may have another one to start.
  Thread* next = self.block->live ? next_thread(self.warp) : nullptr;
  if (next) {
    resume(self.context, *next, true);
  } else {
    current_thread = nullptr;
    switch_context(self.context, machine.host, true);
  }
  std::abort();
}

void start_thread(Block& block, unsigned number, unsigned stack) {
  Thread& thread = block.threads[number];
  Warp& warp = block.warps[number / 32];
  thread.block = &block;
  thread.warp = &warp;
  thread.number = number;
  thread.lane = number % 32;
  thread.index = {number % blockDim.x, number / blockDim.x % blockDim.y, number / (blockDim.x * blockDim.y)};
  thread.activity = "its first lines";
  thread.where = Location();
  thread.copies.clear();
  thread.groups.clear();
  thread.spins = 0;
  thread.done = false;
  prepare(thread.context, machine.stacks.take(stack, settings.stack_bytes), settings.stack_bytes, fiber_main);
  warp.lanes[thread.lane] = &thread;
  warp.live |= 1u << thread.lane;
  wake(warp, 1u << thread.lane);
}

void start_block(unsigned slot, uint64_t number, size_t shared_bytes) {
  Block& block = *machine.blocks[slot];
  const unsigned threads = unsigned(block.threads.size());
  block.number = unsigned(number);
  block.index = {unsigned(number % gridDim.x), unsigned(number / gridDim.x % gridDim.y),
                 unsigned(number / gridDim.x / gridDim.y)};
  block.live = threads;
  block.active = true;
  block.barrier = {};
  block.arena->start(shared_bytes, machine.shared_limit, settings.poison);
  if (settings.racecheck && kernels_are_instrumented) {
    block.races = std::make_unique<SharedRaces>(threads);
    block.order = std::make_unique<BlockOrder>();
  }
  for (Warp& warp : block.warps) {
    warp.live = warp.runnable = 0;
    warp.meetings.clear();
    warp.priority = machine.random();
  }
  for (unsigned i = 0; i < threads; ++i) start_thread(block, i, slot * threads + i);
  ++machine.statistics.blocks;
}

void finish_block(Block& block) {
  block.active = false;
  block.races.reset();
  if (!block.arena->intact()) {
    machine.failed = true;
    machine.failure =
        "a thread has written behind the end of dynamic shared memory, in block " + std::to_string(block.number);
  }
}

void create_blocks(unsigned count, unsigned threads) {
  for (unsigned slot = 0; slot < count; ++slot) {
    if (machine.arenas.size() <= slot) machine.arenas.push_back(std::make_unique<SharedArena>());
    auto block = std::make_unique<Block>();
    block->arena = machine.arenas[slot].get();
    block->threads.resize(threads);
    block->warps.resize((threads + 31) / 32);
    for (Warp& warp : block->warps) {
      warp.block = block.get();
      warp.number = unsigned(&warp - block->warps.data());
      warp.place = unsigned(machine.warps.size());
      machine.warps.push_back(&warp);
    }
    machine.blocks.push_back(std::move(block));
  }
  machine.runnable.assign((machine.warps.size() + 63) / 64, 0);
}

void run_blocks(uint64_t blocks, size_t shared_bytes) {
  for (uint64_t next = 0; !machine.failed;) {
    bool any = false;
    for (unsigned slot = 0; slot < machine.blocks.size(); ++slot) {
      Block& block = *machine.blocks[slot];
      if (block.active && block.live == 0) finish_block(block);
      if (!block.active && next < blocks) start_block(slot, next++, shared_bytes);
      any |= block.active;
    }
    if (!any || machine.failed) return;
    if (Thread* thread = next_thread(nullptr)) {
      resume(machine.host, *thread);
    } else {
      machine.failed = true;
      machine.failure =
          (machine.yielded.empty() ? "deadlock:" : "all threads spin, and nothing changes:") + waiting_threads();
    }
  }
}

// Runs the grid; the report of what went wrong, or "".
std::string run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread) {
  gridDim = grid;
  blockDim = block;
  machine.body = &thread;
  machine.failed = false;
  machine.failure.clear();
  machine.random.state = settings.seed;
  machine.yielded.clear();
  machine.idle_rounds = 0;
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  create_blocks(unsigned(std::min<uint64_t>(std::max(1u, settings.coresident), blocks)), block.x * block.y * block.z);
  if (settings.signals) watch_kernel();
  run_blocks(blocks, shared_bytes);
  if (settings.signals) unwatch_kernel();
  machine.blocks.clear();
  machine.warps.clear();
  global_races.clear();
  if (machine.failed) return machine.failure;
  const std::string damage = find_damage();
  return damage.empty() ? "" : "the kernel has written outside of an allocation: " + damage;
}

cudaError_t execute(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes,
                    const std::function<void()>& thread) {
  ++machine.statistics.launches;
  if (launch_is_doomed()) return raise_sticky(cudaErrorLaunchFailure, "a fault was asked for");
  machine.shared_limit = shared_total_limit(kernel);
  const std::string report = run(grid, block, shared_bytes, thread);
  if (report.empty()) return cudaSuccess;
  return raise_sticky(cudaErrorLaunchFailure, report + "\n  kernel " + function_name(kernel));
}

const char* configuration_error(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes) {
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.x > 1024 || block.y > 1024 || block.z > 64) return "bad block dimensions";
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return "an empty grid";
  if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) return "the grid is too large";
  if (shared_bytes > shared_limit(kernel)) return "more dynamic shared memory than the kernel was allowed";
  return nullptr;
}

}  // namespace

cudaError_t launch_grid(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                        std::function<void()> thread) {
  std::lock_guard lock(device_mutex);
  if (current_thread) fail("a kernel launches a kernel");
  if (cudaError_t error = sticky_error()) return note(error);
  if (const char* problem = configuration_error(kernel, grid, block, shared_bytes)) {
    return raise(cudaErrorInvalidConfiguration, problem + (", kernel " + function_name(kernel)));
  }
  return enqueue(stream,
                 [=, thread = std::move(thread)] { return execute(kernel, grid, block, shared_bytes, thread); });
}

}  // namespace infini::emulation

// The grid at work: blocks, warps and threads, and what each of them waits for.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "emulation/device.h"
#include "emulation/settings.h"
#include "fair_mutex.h"
#include "fibers.h"
#include "shared_memory.h"

namespace infini::emulation {

class SharedRaces;
struct BlockOrder;
struct Block;
struct Warp;

// Of the lanes that one collective brings together: called by the last lane to come, on behalf of all. operands[lane]
// is what that lane passed to collective().
using Collective = void (*)(void** operands, uint32_t mask, const Location& where);

struct AsyncCopy {
  unsigned char* to;
  const unsigned char* from;
  int bytes;  // from memory; the rest of the 16 is zero
  bool arrived;
  Location where;
};

struct Thread {
  Context context;
  Block* block = nullptr;
  Warp* warp = nullptr;
  uint3 index{};
  unsigned number = 0, lane = 0;
  bool done = false;
  const char* activity = "its first lines";  // the latest call of the emulation, and where
  Location where;
  Reduction reduction{};
  int barrier_result = 0;
  std::vector<AsyncCopy> copies;
  std::vector<size_t> groups;  // for each committed group, the number of copies up to its end
  const void* spin_address = nullptr;
  unsigned spins = 0;
};

// Lanes of a warp that are in one collective and wait for the rest of its mask.
struct Meeting {
  Meeting() {}  // leaves the operands as they are: this is made for every collective
  Collective operation;
  const char* name;
  uint32_t mask, arrived;
  Location where;
  void* operands[32];
};

struct Warp {
  Block* block = nullptr;
  unsigned number = 0;
  unsigned place = 0;  // among all warps that are alive
  uint32_t live = 0, runnable = 0;
  uint32_t priority = 0;
  Thread* lanes[32]{};
  std::vector<Meeting> meetings;
};

struct Barrier {
  std::vector<Thread*> waiting;
  int count = 0;  // of true predicates
};

struct Block {
  Block();
  ~Block();

  uint3 index{};
  unsigned number = 0;
  unsigned live = 0;
  bool active = false;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Barrier barrier;
  SharedArena* arena = nullptr;
  std::unique_ptr<SharedRaces> races;  // null without racecheck
  std::unique_ptr<BlockOrder> order;   // null without racecheck
};

// splitmix64
struct Random {
  uint64_t state = 1;
  uint32_t operator()() {
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return uint32_t((z ^ z >> 31) >> 32);
  }
};

struct Machine {
  Context host;  // the thread that launched the kernel
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<Warp*> warps;
  std::vector<uint64_t> runnable;  // a bit per warp
  std::vector<Thread*> yielded;
  uint64_t idle_rounds = 0;  // since anybody did more than spin
  Random random;
  const std::function<void()>* body = nullptr;
  size_t shared_limit = 0;  // of a block of the kernel
  bool observing = false;  // an access that an instrumented kernel has reported is being dealt with
  bool failed = false;
  std::string failure;
  Stacks stacks;
  std::vector<std::unique_ptr<SharedArena>> arenas;
  Statistics statistics{};
};
// Never destroyed: threads of the host may still be at work when the process ends.
extern Machine& machine;

// These are there before any constructor runs: instrumented files report accesses from theirs.
extern Thread* current_thread;  // null: no kernel is running
extern bool kernels_are_instrumented;

// Held during every launch and every call of the runtime API.
extern FairMutex& device_mutex;

// ---- scheduler.cc

void sleep(Thread& thread);
void wake(Warp& warp, uint32_t lanes);
// Who goes on; null when nobody can. A warp that can go on is preferred where the schedule says so.
Thread* next_thread(const Warp* preferred);
void resume(Context& from, Thread& thread, bool last = false);
// The running thread gives way, to itself if it is still ready.
void reschedule();
// Until all others have had a turn.
void yield();
// Now and then, under the schedules that chance has a say in.
void maybe_preempt();

// ---- collectives.cc

// All lanes of an aligned collective come from the same place in the source.
enum class Alignment : bool { Any, Aligned };
void collective(Collective operation, const char* name, uint32_t mask, void* operands, Alignment alignment,
                const Location& where);

// ---- barriers.cc

// The others need not wait for a thread that has exited.
void complete_barrier_without(Block& block);

}  // namespace infini::emulation

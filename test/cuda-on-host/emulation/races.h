// Finds accesses that conflict and that nothing orders, whichever came first in this run. Fed by the accesses that an
// instrumented kernel reports (instrumentation.cc) and by the models of the instructions.
//
// What orders memory: a barrier orders everything before it in the block with everything after it; __syncwarp orders
// the lanes of its mask; blocks are ordered by __threadfence and then an atomic that the other block's atomic sees.
#pragma once

#include <cstdlib>
#include <memory>
#include <unordered_map>
#include <vector>

#include "report.h"

namespace infini::emulation {

struct Thread;

constexpr size_t kGranule = 2;  // bytes: the smallest element

enum class Access : uint8_t { Read, Write, Atomic };  // an atomic does not race with another

// One block's shared memory, and the clocks of its lanes. Threads of different warps have nothing but barriers between
// them, so what they did belongs to an epoch; lanes of one warp compare clocks.
class SharedRaces {
 public:
  explicit SharedRaces(unsigned threads);

  void next_epoch();
  void join_lanes(unsigned warp, uint32_t mask);
  void access(Access kind, const Thread& thread, size_t offset, size_t bytes, Site site);
  // Fails when nobody has written the bytes about to be read. Copies of a struct read its padding too: then every
  // 8 bytes must have been written in part.
  enum class Padding : bool { None, Possible };
  void check_written(const Thread& thread, size_t offset, size_t bytes, Padding padding, Site site);
  // Between these two the bytes belong to a cp.async: nobody may touch them.
  void begin_copy(const Thread& thread, size_t offset, size_t bytes, Site site);
  void end_copy(const Thread& thread, size_t offset, size_t bytes, Site site);

  uint32_t epoch() const { return epoch_; }
  uint32_t clock(unsigned thread) const { return clocks_[thread * 32 + thread % 32]; }
  // Whether `thread` knows of what `other` did at this clock of this epoch.
  bool ordered(unsigned thread, unsigned other, uint32_t clock) const {
    return thread == other || (thread / 32 == other / 32 && clocks_[thread * 32 + other % 32] >= clock);
  }

 private:
  static constexpr uint32_t kNoRow = ~0u;
  static constexpr uint16_t kNobody = 0xffff;
  struct Granule {
    uint32_t epoch;  // of the latest access: what is older is ordered
    uint32_t write_clock, read_clock;
    uint32_t readers;  // row of rows_, when there are several
    Site write_site, read_site, copy_site;
    uint16_t writer, reader;
    bool written, atomic, copying;
  };
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  Granule& current(size_t granule);
  void check_writer(Access kind, const Granule& granule, const Thread& thread, size_t offset, Site site);
  void check_readers(const Granule& granule, const Thread& thread, size_t offset, Site site);
  void note_reader(Granule& granule, unsigned thread, Site site);
  [[noreturn]] void report(Access kind, const Thread& thread, size_t offset, Site site, const char* earlier_kind,
                           unsigned earlier, Site earlier_site);

  unsigned threads_;
  uint32_t epoch_ = 1;
  std::vector<uint32_t> clocks_;  // [thread][lane of its warp]
  std::unique_ptr<Granule[], Free> granules_;
  std::vector<uint32_t> rows_;  // of this epoch: [row][thread], the clock of a read
};

// What a block has seen of others: fences count, and an atomic publishes what lies before the latest one.
struct BlockOrder {
  uint32_t fences = 1;
  std::unordered_map<uint32_t, uint32_t> seen;  // by block: that many fences
};

// Device memory, during one launch.
class GlobalRaces {
 public:
  void access(Access kind, const Thread& thread, const void* address, size_t bytes, Site site);
  // An atomic: sees what all atomics on this address before it have published, and publishes.
  void synchronize(const Thread& thread, const void* address);
  void clear();

 private:
  struct Event {
    uint32_t block, fences, epoch, clock;
    Site site;
    uint16_t thread;
    bool happened, atomic;
  };
  struct Granule {
    Event write, read;
    Event foreign_read;  // the latest one by another block than `read`'s
  };
  static constexpr size_t kChunk = 1024;  // bytes
  struct Chunk {
    Granule granules[kChunk / kGranule];
  };

  Granule& granule(uintptr_t address);
  static bool ordered(const Thread& thread, const Event& event);
  [[noreturn]] static void report(Access kind, const Thread& thread, uintptr_t address, Site site,
                                  const char* earlier_kind, const Event& earlier);

  std::unordered_map<uintptr_t, std::unique_ptr<Chunk>> chunks_;
  uintptr_t latest_index_ = 0;
  Chunk* latest_ = nullptr;
  std::unordered_map<const void*, std::unordered_map<uint32_t, uint32_t>> published_;  // by atomic, by block
};
extern GlobalRaces& global_races;

}  // namespace infini::emulation

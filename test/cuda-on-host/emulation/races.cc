#include "races.h"

#include <algorithm>
#include <bit>
#include <new>

#include "device_memory.h"
#include "machine.h"

namespace infini::emulation {

GlobalRaces& global_races = *new GlobalRaces;

namespace {

const char* verb(Access kind) {
  switch (kind) {
    case Access::Read: return "read";
    case Access::Write: return "write";
    case Access::Atomic: return "atomic";
  }
  return "";
}

}  // namespace

// ---- shared memory

SharedRaces::SharedRaces(unsigned threads)
    : threads_(threads),
      clocks_(size_t(threads) * 32, 0),
      granules_(static_cast<Granule*>(std::calloc(SharedArena::kMapped / kGranule, sizeof(Granule)))) {
  if (!granules_) throw std::bad_alloc();
  for (unsigned thread = 0; thread < threads; ++thread) clocks_[thread * 32 + thread % 32] = 1;
}

void SharedRaces::next_epoch() {
  ++epoch_;
  rows_.clear();
}

void SharedRaces::join_lanes(unsigned warp, uint32_t mask) {
  uint32_t joined[32] = {};
  for (uint32_t lanes = mask; lanes; lanes &= lanes - 1) {
    const uint32_t* clocks = &clocks_[(warp * 32 + unsigned(std::countr_zero(lanes))) * 32];
    for (int lane = 0; lane < 32; ++lane) joined[lane] = std::max(joined[lane], clocks[lane]);
  }
  for (uint32_t lanes = mask; lanes; lanes &= lanes - 1) {
    const unsigned lane = unsigned(std::countr_zero(lanes));
    uint32_t* clocks = &clocks_[(warp * 32 + lane) * 32];
    std::copy(joined, joined + 32, clocks);
    ++clocks[lane];
  }
}

SharedRaces::Granule& SharedRaces::current(size_t index) {
  Granule& granule = granules_[index];
  if (granule.epoch != epoch_) {
    granule.epoch = epoch_;
    granule.writer = granule.reader = kNobody;
    granule.readers = kNoRow;
  }
  return granule;
}

void SharedRaces::check_writer(Access kind, const Granule& granule, const Thread& thread, size_t offset, Site site) {
  if (granule.copying) {
    fail(std::string(verb(kind)) + " of bytes that a cp.async is writing, issued at " + name(granule.copy_site) +
             " and not yet waited for; " + thread.block->arena->describe(offset),
         site);
  }
  if (kind == Access::Atomic && granule.atomic) return;
  if (granule.writer != kNobody && !ordered(thread.number, granule.writer, granule.write_clock)) {
    report(kind, thread, offset, site, granule.atomic ? "atomic" : "write", granule.writer, granule.write_site);
  }
}

void SharedRaces::check_readers(const Granule& granule, const Thread& thread, size_t offset, Site site) {
  if (granule.readers == kNoRow) {
    if (granule.reader != kNobody && !ordered(thread.number, granule.reader, granule.read_clock)) {
      report(Access::Write, thread, offset, site, "read", granule.reader, granule.read_site);
    }
    return;
  }
  const uint32_t* clocks = &rows_[size_t(granule.readers) * threads_];
  for (unsigned reader = 0; reader < threads_; ++reader) {
    if (clocks[reader] && !ordered(thread.number, reader, clocks[reader])) {
      report(Access::Write, thread, offset, site, "read", reader, granule.read_site);
    }
  }
}

void SharedRaces::note_reader(Granule& granule, unsigned thread, Site site) {
  const bool alone = granule.reader == kNobody || granule.reader == thread;
  if (granule.readers == kNoRow && !alone) {
    granule.readers = uint32_t(rows_.size() / threads_);
    rows_.resize(rows_.size() + threads_, 0);
    rows_[size_t(granule.readers) * threads_ + granule.reader] = granule.read_clock;
  }
  if (granule.readers != kNoRow) rows_[size_t(granule.readers) * threads_ + thread] = clock(thread);
  granule.reader = uint16_t(thread);
  granule.read_clock = clock(thread);
  granule.read_site = site;
}

void SharedRaces::access(Access kind, const Thread& thread, size_t offset, size_t bytes, Site site) {
  for (size_t i = offset / kGranule; i <= (offset + bytes - 1) / kGranule; ++i) {
    Granule& granule = current(i);
    check_writer(kind, granule, thread, i * kGranule, site);
    if (kind == Access::Read) {
      note_reader(granule, thread.number, site);
      continue;
    }
    check_readers(granule, thread, i * kGranule, site);
    granule.writer = uint16_t(thread.number);
    granule.write_clock = clock(thread.number);
    granule.write_site = site;
    granule.written = true;
    granule.atomic = kind == Access::Atomic;
    granule.reader = kNobody;
    granule.readers = kNoRow;
  }
}

void SharedRaces::check_written(const Thread& thread, size_t offset, size_t bytes, Padding padding, Site site) {
  const size_t step = padding == Padding::Possible ? 8 : kGranule, end = offset + bytes;
  for (size_t at = offset; at < end; at += step) {
    bool written = false;
    for (size_t i = at / kGranule; i <= (std::min(at + step, end) - 1) / kGranule; ++i) written |= granules_[i].written;
    if (!written) fail("read of shared memory that nobody has written; " + thread.block->arena->describe(at), site);
  }
}

void SharedRaces::begin_copy(const Thread& thread, size_t offset, size_t bytes, Site site) {
  access(Access::Write, thread, offset, bytes, site);
  for (size_t i = offset / kGranule; i < (offset + bytes) / kGranule; ++i) {
    granules_[i].copying = true;
    granules_[i].copy_site = site;
  }
}

void SharedRaces::end_copy(const Thread& thread, size_t offset, size_t bytes, Site site) {
  for (size_t i = offset / kGranule; i < (offset + bytes) / kGranule; ++i) granules_[i].copying = false;
  access(Access::Write, thread, offset, bytes, site);
}

void SharedRaces::report(Access kind, const Thread& thread, size_t offset, Site site, const char* earlier_kind,
                         unsigned earlier, Site earlier_site) {
  fail("race in shared memory: " + std::string(verb(kind)) + " by thread " + std::to_string(thread.number) +
           ", with no barrier since the " + earlier_kind + " by thread " + std::to_string(earlier) + " at " +
           name(earlier_site) + "; " + thread.block->arena->describe(offset),
       site);
}

// ---- global memory

GlobalRaces::Granule& GlobalRaces::granule(uintptr_t address) {
  const uintptr_t index = address / kChunk;
  if (!latest_ || index != latest_index_) {
    std::unique_ptr<Chunk>& chunk = chunks_[index];
    if (!chunk) chunk = std::make_unique<Chunk>();
    latest_index_ = index;
    latest_ = chunk.get();
  }
  return latest_->granules[address % kChunk / kGranule];
}

bool GlobalRaces::ordered(const Thread& thread, const Event& event) {
  const Block& block = *thread.block;
  if (event.block != block.number) {
    const auto seen = block.order->seen.find(event.block);
    return seen != block.order->seen.end() && seen->second > event.fences;
  }
  return event.epoch != block.races->epoch() || block.races->ordered(thread.number, event.thread, event.clock);
}

void GlobalRaces::access(Access kind, const Thread& thread, const void* address, size_t bytes, Site site) {
  const Block& block = *thread.block;
  // An atomic is ordered by the next one on its address, fence or no fence.
  const uint32_t fences = block.order->fences - (kind == Access::Atomic);
  const Event event{block.number,
                    fences,
                    block.races->epoch(),
                    block.races->clock(thread.number),
                    site,
                    uint16_t(thread.number),
                    true,
                    kind == Access::Atomic};
  const uintptr_t begin = reinterpret_cast<uintptr_t>(address);
  for (uintptr_t at = begin / kGranule * kGranule; at < begin + bytes; at += kGranule) {
    Granule& granule = this->granule(at);
    const bool both_atomic = kind == Access::Atomic && granule.write.atomic;
    if (granule.write.happened && !both_atomic && !ordered(thread, granule.write)) {
      report(kind, thread, at, site, granule.write.atomic ? "atomic" : "write", granule.write);
    }
    if (kind == Access::Read) {
      if (granule.read.happened && granule.read.block != event.block) granule.foreign_read = granule.read;
      granule.read = event;
      continue;
    }
    for (const Event* read : {&granule.read, &granule.foreign_read}) {
      if (read->happened && !ordered(thread, *read)) report(kind, thread, at, site, "read", *read);
    }
    granule = {event, {}, {}};
  }
}

void GlobalRaces::synchronize(const Thread& thread, const void* address) {
  BlockOrder& order = *thread.block->order;
  auto& published = published_[address];
  for (const auto& [block, fences] : published) {
    uint32_t& seen = order.seen[block];
    seen = std::max(seen, fences);
  }
  for (const auto& [block, fences] : order.seen) {
    uint32_t& shown = published[block];
    shown = std::max(shown, fences);
  }
  published[thread.block->number] = order.fences;
}

void GlobalRaces::clear() {
  chunks_.clear();
  published_.clear();
  latest_ = nullptr;
}

void GlobalRaces::report(Access kind, const Thread& thread, uintptr_t address, Site site, const char* earlier_kind,
                         const Event& earlier) {
  const bool foreign = earlier.block != thread.block->number;
  fail("race in global memory: " + std::string(verb(kind)) + " by thread " + std::to_string(thread.number) +
           " of block " + std::to_string(thread.block->number) + ", with nothing to order it after the " +
           earlier_kind + " by thread " + std::to_string(earlier.thread) +
           (foreign ? " of block " + std::to_string(earlier.block) : "") + " at " + emulation::name(earlier.site) +
           "; " + describe_device_address(reinterpret_cast<void*>(address)),
       site);
}

}  // namespace infini::emulation

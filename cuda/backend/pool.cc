#include "backend/pool.h"

#include <algorithm>
#include <bit>

#include "core/error.h"

namespace infini::cuda {

struct Slab {
  char* base;
  size_t slot_bytes, slots;
  std::vector<char*> free;  // the slots that are not in use
  std::list<std::unique_ptr<Slab>>::iterator place;  // in one of the pool's lists

  size_t bytes() const { return slot_bytes * slots; }
  bool vacant() const { return free.size() == slots; }
};

namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kLeastSlab = 256 << 10, kMostSlab = 16 << 20;  // a larger slot has a slab of its own

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Scratch of ever new sizes shares slots: four sizes to a power of two waste at most a fifth.
size_t slot_bytes_for(size_t bytes, Account account) {
  bytes = std::max<size_t>(bytes, 1);
  if (is_lasting(account)) return round_up(bytes, kAlignment);
  return round_up(bytes, std::max<size_t>(kAlignment, std::bit_floor(bytes - 1) / 4));
}

// As the ledger counts buffers elsewhere.
int64_t charge(size_t bytes) { return int64_t(std::max<size_t>(64, round_up(bytes, 64))); }

}  // namespace

Block::~Block() {
  if (!data_) return;
  pool_->ledger_.*account_ -= charge(bytes_);
  pool_->give_back(*slab_, data_);
}

Pool::Pool(Ledger& ledger, std::unique_ptr<Source> source, size_t most_idle)
    : ledger_(ledger), source_(std::move(source)), most_idle_(most_idle) {}

Pool::~Pool() {
  for (const Slabs* slabs : {&busy_, &vacant_}) {
    for (const auto& slab : *slabs) source_->release(slab->base);
  }
}

Block Pool::take(size_t bytes, Account account, const std::string& what) {
  Block block;
  std::lock_guard lock(mutex_);
  const size_t slot_bytes = slot_bytes_for(bytes, account);
  Size& size = sizes_[slot_bytes];
  size.slot_bytes = slot_bytes;
  if (size.open.empty()) grow(size, account, what);
  Slab& slab = *size.open.back();
  if (slab.vacant()) {
    busy_.splice(busy_.end(), vacant_, slab.place);
    vacant_bytes_ -= slab.bytes();
  }
  block.pool_ = this;
  block.slab_ = &slab;
  block.data_ = slab.free.back();
  block.bytes_ = bytes;
  block.account_ = account;
  slab.free.pop_back();
  if (slab.free.empty()) size.open.pop_back();
  ledger_.*account += charge(bytes);
  count_idle(-int64_t(slot_bytes));
  return block;
}

// As many slots as there are already, so that few slabs hold many slots; a single one when there is no room for more.
void Pool::grow(Size& size, Account account, const std::string& what) {
  const size_t fitting = std::max<size_t>(1, kMostSlab / size.slot_bytes);
  const size_t least = std::min(fitting, (kLeastSlab + size.slot_bytes - 1) / size.slot_bytes);
  size_t slots = std::clamp(size.slots, least, fitting);
  // All that may fail comes before there is anything to give back.
  Slabs made;
  made.push_back(std::make_unique<Slab>());
  Slab& slab = *made.front();
  slab.free.reserve(slots);
  size.open.reserve(size.slabs + 1);
  void* base = nullptr;
  while (!(base = source_->allocate(slots * size.slot_bytes))) {
    if (release_oldest()) continue;
    if (slots == 1) throw Error::out_of_memory(what, size.slot_bytes, source_->available());
    slots = 1;
  }
  slab.base = static_cast<char*>(base);
  slab.slot_bytes = size.slot_bytes;
  slab.slots = slots;
  slab.place = made.begin();
  for (size_t i = slots; i-- > 0;) slab.free.push_back(slab.base + i * size.slot_bytes);
  size.open.push_back(&slab);
  size.slots += slots;
  ++size.slabs;
  vacant_.splice(vacant_.end(), made);
  vacant_bytes_ += slab.bytes();
  count_idle(int64_t(slab.bytes()));
  if (!is_lasting(account)) ledger_.allocated_bytes += int64_t(slab.bytes());
}

bool Pool::release_oldest() noexcept {
  if (vacant_.empty()) return false;
  Slab& slab = *vacant_.front();
  Size& size = sizes_.find(slab.slot_bytes)->second;
  size.open.erase(std::find(size.open.begin(), size.open.end(), &slab));
  size.slots -= slab.slots;
  --size.slabs;
  vacant_bytes_ -= slab.bytes();
  count_idle(-int64_t(slab.bytes()));
  source_->release(slab.base);
  vacant_.pop_front();
  return true;
}

void Pool::give_back(Slab& slab, char* data) noexcept {
  std::lock_guard lock(mutex_);
  if (slab.free.empty()) sizes_.find(slab.slot_bytes)->second.open.push_back(&slab);
  slab.free.push_back(data);
  count_idle(int64_t(slab.slot_bytes));
  if (!slab.vacant()) return;
  vacant_.splice(vacant_.end(), busy_, slab.place);
  vacant_bytes_ += slab.bytes();
  while (vacant_bytes_ > most_idle_) release_oldest();
}

}  // namespace infini::cuda

#include "shared_memory.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

#include "machine.h"
#include "report.h"
#include "sanitizer.h"

namespace infini::emulation {

namespace {

// The mapping: a guard page, variables, guard pages, the dynamic part up to kDynamicEnd, guard pages.
constexpr size_t kPage = 4096;
constexpr size_t kStaticBegin = kPage, kStaticLimit = kStaticBegin + kSharedPerBlock;
constexpr size_t kDynamicEnd = SharedArena::kMapped - 16 * kPage;
constexpr size_t kDynamicMapped = kDynamicEnd - (kSharedPerBlockOptin + kPage - 1) / kPage * kPage;
static_assert(kDynamicMapped > kStaticLimit && kDynamicMapped % kPage == 0);
constexpr size_t kAlignment = 1024;
constexpr unsigned char kCanary = 0xA5;

}  // namespace

SharedArena::SharedArena() {
  void* map = mmap(nullptr, kMapped + kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) throw std::bad_alloc();
  base_ = static_cast<unsigned char*>(map);
  mprotect(base_ + kStaticBegin, kStaticLimit - kStaticBegin, PROT_READ | PROT_WRITE);
  mprotect(base_ + kDynamicMapped, kDynamicEnd - kDynamicMapped, PROT_READ | PROT_WRITE);
}

SharedArena::~SharedArena() {
  allow(base_, kMapped);
  munmap(base_, kMapped + kPage);
}

void SharedArena::start(size_t dynamic_bytes, size_t limit, bool poison) {
  dynamic_bytes_ = dynamic_bytes;
  limit_ = limit;
  dynamic_begin_ = (kDynamicEnd - dynamic_bytes) / kAlignment * kAlignment;
  static_end_ = kStaticBegin;
  variables_.clear();
  allow(base_, kMapped);
  const int fill = poison ? 0xFF : 0;
  std::memset(base_ + kStaticBegin, fill, kStaticLimit - kStaticBegin);
  std::memset(dynamic(), fill, dynamic_bytes);
  std::memset(dynamic() + dynamic_bytes, kCanary, kDynamicEnd - dynamic_begin_ - dynamic_bytes);
  forbid(base_ + kStaticBegin, kStaticLimit - kStaticBegin);
  forbid(base_ + kDynamicMapped, dynamic_begin_ - kDynamicMapped);
  forbid(dynamic() + dynamic_bytes, kDynamicEnd - dynamic_begin_ - dynamic_bytes);
}

void* SharedArena::variable(const void* tag, size_t bytes, size_t alignment, const Location& where) {
  for (const Variable& variable : variables_) {
    if (variable.tag == tag) return base_ + variable.offset;
  }
  const size_t begin = (static_end_ + alignment - 1) / alignment * alignment;
  // The dynamic part begins at a multiple of kAlignment.
  const size_t used = begin + bytes - kStaticBegin, before_dynamic = (used + kAlignment - 1) / kAlignment * kAlignment;
  if (used > kSharedPerBlock || (dynamic_bytes_ > 0 ? before_dynamic : used) + dynamic_bytes_ > limit_) {
    fail("the block's variables and its dynamic part do not fit in shared memory", where);
  }
  variables_.push_back({tag, begin});
  static_end_ = begin + bytes;
  allow(base_ + begin, bytes);
  return base_ + begin;
}

bool SharedArena::holds(size_t offset, size_t bytes) const {
  return (offset >= kStaticBegin && offset + bytes <= static_end_) ||
         (offset >= dynamic_begin_ && offset + bytes <= dynamic_begin_ + dynamic_bytes_);
}

std::string SharedArena::describe(size_t offset) const {
  if (offset < kStaticLimit + kPage) {
    return "shared variables, byte " + std::to_string(ptrdiff_t(offset - kStaticBegin));
  }
  return "dynamic shared memory, byte " + std::to_string(ptrdiff_t(offset - dynamic_begin_)) + " of " +
         std::to_string(dynamic_bytes_);
}

bool SharedArena::intact() const {
  if (kAddressSanitizer) return true;  // it has seen every access itself
  for (size_t i = dynamic_begin_ + dynamic_bytes_; i < kDynamicEnd; ++i) {
    if (base_[i] != kCanary) return false;
  }
  return true;
}

unsigned char* dynamic_shared() { return current_thread->block->arena->dynamic(); }

void* shared_variable(const void* tag, size_t bytes, size_t alignment, const Location& where) {
  return current_thread->block->arena->variable(tag, bytes, alignment, where);
}

unsigned char* shared_bytes(uint32_t address, size_t bytes, const char* what, const Location& where) {
  const SharedArena& arena = *current_thread->block->arena;
  if (!arena.holds(address, bytes)) {
    fail(std::string(what) + ": out of bounds, " + arena.describe(address), where);
  }
  if (address % bytes) fail(std::string(what) + ": misaligned, " + arena.describe(address), where);
  return arena.at(address);
}

}  // namespace infini::emulation

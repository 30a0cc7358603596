#include "device_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "emulation/settings.h"
#include "sanitizer.h"

namespace infini::emulation {

namespace {

constexpr size_t kPage = 4096, kAlignment = 16;
constexpr size_t kReserved = size_t(256) << 30;  // of address space
constexpr unsigned char kCanary = 0xA5;

constexpr size_t kRemembered = 1024;  // freed allocations, for reports

struct Allocation {
  unsigned char* begin;
  size_t bytes;
  unsigned char* pages;
  size_t mapped;
  bool live;
};
using Allocations = std::map<size_t, Allocation>;  // by offset of the pages

struct Heap {
  unsigned char* base = nullptr;
  size_t top = 0;  // offset where the next allocation is tried
  Allocations live, freed;
  const Allocation* latest = nullptr;  // found by the latest look-up
  size_t live_bytes = 0;
};
Heap& heap = *new Heap;

// Moves the top to a gap of `bytes`: whole pages, a guard page included.
bool find_gap(size_t bytes) {
  for (int turn = 0; turn < 2; ++turn) {
    for (auto next = heap.live.lower_bound(heap.top); heap.top + bytes <= kReserved; ++next) {
      if (next == heap.live.end() || next->first >= heap.top + bytes) return true;
      heap.top = next->first + next->second.mapped + kPage;
    }
    heap.top = kPage;
  }
  return false;
}

// The allocation that the offset lies in, or in the guard page behind it.
const Allocation* covering(const Allocations& allocations, size_t offset) {
  const auto after = allocations.upper_bound(offset);
  if (after == allocations.begin()) return nullptr;
  const auto before = std::prev(after);
  return offset < before->first + before->second.mapped + kPage ? &before->second : nullptr;
}

const Allocation* nearest(const void* address) {
  const size_t offset = size_t(static_cast<const unsigned char*>(address) - heap.base);
  if (const Allocation* allocation = covering(heap.live, offset)) return allocation;
  if (const Allocation* allocation = covering(heap.freed, offset)) return allocation;
  const auto after = heap.live.upper_bound(offset);
  return after == heap.live.end() ? nullptr : &after->second;
}

bool holds(const Allocation& allocation, const void* address) {
  return address >= allocation.begin && address < allocation.begin + allocation.bytes;
}

const Allocation* live_at(const void* address) {
  if (heap.latest && holds(*heap.latest, address)) return heap.latest;
  const Allocation* allocation = covering(heap.live, size_t(static_cast<const unsigned char*>(address) - heap.base));
  return allocation && holds(*allocation, address) ? heap.latest = allocation : nullptr;
}

// The first byte of [begin, end) that is not as it was left; then it is so again, and reported once.
unsigned char* repair(unsigned char* begin, const unsigned char* end) {
  unsigned char* byte =
      std::find_if(begin, const_cast<unsigned char*>(end), [](unsigned char c) { return c != kCanary; });
  if (byte == end) return nullptr;
  std::fill(byte, const_cast<unsigned char*>(end), kCanary);
  return byte;
}

unsigned char* damaged_byte(const Allocation& allocation) {
  if (kAddressSanitizer) return nullptr;  // it has seen every access itself
  unsigned char* before = repair(allocation.pages, allocation.begin);
  unsigned char* after = repair(allocation.begin + allocation.bytes, allocation.pages + allocation.mapped);
  return before ? before : after;
}

}  // namespace

void* allocate_device(size_t bytes) {
  if (bytes > settings.device_memory || heap.live_bytes > settings.device_memory - bytes) return nullptr;
  if (!heap.base) {
    void* map = mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) return nullptr;
    heap.base = static_cast<unsigned char*>(map);
    heap.top = kPage;
  }
  const size_t padded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const size_t mapped = (padded + kPage - 1) / kPage * kPage;
  heap.latest = nullptr;
  if (!find_gap(mapped + kPage)) return nullptr;
  unsigned char* pages = heap.base + heap.top;
  if (mprotect(pages, mapped, PROT_READ | PROT_WRITE) != 0) return nullptr;
  unsigned char* begin = pages + mapped - padded;
  std::memset(pages, kCanary, size_t(begin - pages));
  std::memset(begin, settings.poison ? 0xFF : 0, bytes);
  std::memset(begin + bytes, kCanary, padded - bytes);
  forbid(pages, mapped);
  allow(begin, bytes);
  heap.freed.erase(heap.freed.lower_bound(heap.top), heap.freed.lower_bound(heap.top + mapped + kPage));
  heap.live[heap.top] = {begin, bytes, pages, mapped, true};
  heap.top += mapped + kPage;
  heap.live_bytes += bytes;
  return begin;
}

bool free_device(void* address) {
  if (!is_device_address(address)) return false;
  const Allocation* found = live_at(address);
  if (!found || found->begin != address) return false;
  auto node = heap.live.extract(size_t(found->pages - heap.base));
  Allocation& allocation = node.mapped();
  allocation.live = false;
  heap.latest = nullptr;
  heap.live_bytes -= allocation.bytes;
  allow(allocation.pages, allocation.mapped);
  madvise(allocation.pages, allocation.mapped, MADV_DONTNEED);
  mprotect(allocation.pages, allocation.mapped, PROT_NONE);
  heap.freed.insert(std::move(node));
  if (heap.freed.size() > kRemembered) heap.freed.erase(heap.freed.begin());
  return true;
}

size_t device_bytes() { return heap.live_bytes; }
size_t device_allocations() { return heap.live.size(); }

bool is_device_address(const void* address) {
  return heap.base && address >= heap.base && address < heap.base + kReserved;
}

bool is_device_range(const void* address, size_t bytes) {
  if (!is_device_address(address)) return false;
  const Allocation* allocation = live_at(address);
  return allocation &&
         bytes <= size_t(allocation->begin + allocation->bytes - static_cast<const unsigned char*>(address));
}

std::string describe_device_address(const void* address) {
  const Allocation* allocation = is_device_address(address) ? nearest(address) : nullptr;
  if (!allocation) return "no allocation near";
  return "byte " + std::to_string(static_cast<const unsigned char*>(address) - allocation->begin) +
         " of an allocation of " + std::to_string(allocation->bytes) + (allocation->live ? "" : " (freed)");
}

void check_device_range(const void* address, size_t bytes, const char* what, Site site) {
  if (is_device_range(address, bytes)) return;
  fail(std::string(what) + " of " + std::to_string(bytes) +
           " bytes outside of device memory: " + describe_device_address(address),
       site);
}

std::string find_damage() {
  for (const auto& [offset, allocation] : heap.live) {
    if (const unsigned char* byte = damaged_byte(allocation)) return describe_device_address(byte);
  }
  return "";
}

}  // namespace infini::emulation

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

struct Allocation {
  unsigned char* begin;
  size_t bytes;
  unsigned char* pages;
  size_t mapped;
  bool live;
};

struct Heap {
  unsigned char* base = nullptr;
  size_t top = 0;                            // offset where the next allocation is tried
  std::map<size_t, Allocation> allocations;  // by offset of the pages, live ones and freed ones
  const Allocation* latest = nullptr;        // found by the latest look-up
  size_t live_bytes = 0, live_count = 0;
};
Heap& heap = *new Heap;

// A gap of `bytes` (whole pages, guard page included) at or after the top; the freed there are forgotten.
bool find_gap(size_t bytes) {
  for (int turn = 0; turn < 2; ++turn) {
    for (auto next = heap.allocations.lower_bound(heap.top); heap.top + bytes <= kReserved;) {
      while (next != heap.allocations.end() && !next->second.live && next->first < heap.top + bytes) {
        next = heap.allocations.erase(next);
      }
      if (next == heap.allocations.end() || next->first >= heap.top + bytes) return true;
      heap.top = next->first + next->second.mapped + kPage;
      ++next;
    }
    heap.top = kPage;
  }
  return false;
}

// The allocation that the address lies in or next to.
const Allocation* nearest(const void* address) {
  const size_t offset = size_t(static_cast<const unsigned char*>(address) - heap.base);
  auto after = heap.allocations.upper_bound(offset);
  if (after == heap.allocations.begin()) return after == heap.allocations.end() ? nullptr : &after->second;
  const Allocation* before = &std::prev(after)->second;
  if (after == heap.allocations.end() || offset < size_t(before->pages - heap.base) + before->mapped + kPage) {
    return before;
  }
  return &after->second;
}

const Allocation* live_at(const void* address) {
  if (heap.latest && address >= heap.latest->begin && address < heap.latest->begin + heap.latest->bytes) {
    return heap.latest;
  }
  const Allocation* allocation = nearest(address);
  if (!allocation || !allocation->live || address < allocation->begin ||
      address >= allocation->begin + allocation->bytes) {
    return nullptr;
  }
  return heap.latest = allocation;
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
  heap.allocations[heap.top] = {begin, bytes, pages, mapped, true};
  heap.top += mapped + kPage;
  heap.live_bytes += bytes;
  ++heap.live_count;
  return begin;
}

bool free_device(void* address) {
  if (!is_device_address(address)) return false;
  auto found = heap.allocations.upper_bound(size_t(static_cast<unsigned char*>(address) - heap.base));
  if (found == heap.allocations.begin()) return false;
  Allocation& allocation = std::prev(found)->second;
  if (!allocation.live || allocation.begin != address) return false;
  allocation.live = false;
  heap.latest = nullptr;
  heap.live_bytes -= allocation.bytes;
  --heap.live_count;
  allow(allocation.pages, allocation.mapped);
  madvise(allocation.pages, allocation.mapped, MADV_DONTNEED);
  mprotect(allocation.pages, allocation.mapped, PROT_NONE);
  return true;
}

size_t device_bytes() { return heap.live_bytes; }
size_t device_allocations() { return heap.live_count; }

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
  for (const auto& [offset, allocation] : heap.allocations) {
    if (!allocation.live) continue;
    if (const unsigned char* byte = damaged_byte(allocation)) return describe_device_address(byte);
  }
  return "";
}

}  // namespace infini::emulation

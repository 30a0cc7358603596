// Which allocations fail. The environment variable INFINI_FAULTS names a file of numbers that this process and the test
// share (faults.ts): for those of the host, then for those of the device, one in how many fails (0: none), the seed, how
// many were asked for, how many failed.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>

namespace infini::faults {

struct Faults {
  std::atomic<uint32_t> one_in, seed, asked, failed;

  bool next_fails() {
    const uint32_t among = one_in;
    if (among == 0) return false;
    uint32_t bits = seed + 0x9e3779b9u * ++asked;
    bits = (bits ^ (bits >> 16)) * 0x85ebca6bu;
    bits = (bits ^ (bits >> 13)) * 0xc2b2ae35u;
    if ((bits ^ (bits >> 16)) % among != 0) return false;
    ++failed;
    return true;
  }
};

struct Control {
  Faults host, device;
};

inline Control* open_control() {
  const char* name = std::getenv("INFINI_FAULTS");
  const int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
  if (file < 0) return nullptr;
  void* shared = mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  return shared == MAP_FAILED ? nullptr : static_cast<Control*>(shared);
}

// Null when nothing is to fail. Asks for no memory.
inline Control* control() {
  static Control* const shared = open_control();
  return shared;
}

// While it is not 0 this thread's allocations are not the addon's own: they are the emulated device's.
inline thread_local int spared = 0;

}  // namespace infini::faults

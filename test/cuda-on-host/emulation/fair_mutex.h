// A recursive lock that is given in the order in which it was asked for: a thread that launches kernel after kernel
// would else take it again and again, and no other would get in. Its holder plays the device, whose own needs are not
// the addon's: no host allocation of theirs is made to fail.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

#include "../../faults/control.h"

namespace infini::emulation {

class FairMutex {
 public:
  void lock() {
    ++faults::spared;
    std::unique_lock lock(mutex_);
    if (owner_ == std::this_thread::get_id()) {
      ++depth_;
      return;
    }
    const uint64_t ticket = next_ticket_++;
    changed_.wait(lock, [&] { return serving_ == ticket; });
    owner_ = std::this_thread::get_id();
    depth_ = 1;
  }

  void unlock() {
    --faults::spared;
    std::lock_guard lock(mutex_);
    if (--depth_ > 0) return;
    owner_ = {};
    ++serving_;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::thread::id owner_;
  int depth_ = 0;
  uint64_t next_ticket_ = 0, serving_ = 0;
};

}  // namespace infini::emulation

// Work of a stream that is still to be done: when the host waits for it, or, by chance, some time before. So both what
// relies on work that nobody waited for and what is overtaken by work that should have waited is found.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <utility>

#include "emulation/runtime_api.h"

namespace infini::emulation {

class Queue {
 public:
  using Work = std::function<cudaError_t()>;

  // The ticket of the work, which is_done() and finish() ask for. `ready`: whether it may be done now, or has to wait
  // for another queue; empty: always.
  uint64_t add(Work work, std::function<bool()> ready = {}) {
    tasks_.push_back({std::move(work), std::move(ready)});
    return ++added_;
  }
  uint64_t latest() const { return added_; }
  bool is_done(uint64_t ticket) const { return done_ >= ticket; }

  // Returns the first error. Work that is not ready does what it has to wait for.
  cudaError_t finish(uint64_t ticket) {
    while (!is_done(ticket)) {
      if (const cudaError_t error = finish_one()) return error;
    }
    return cudaSuccess;
  }
  cudaError_t finish_one() {
    if (tasks_.empty()) return cudaSuccess;
    const Work work = std::move(tasks_.front().work);
    tasks_.pop_front();
    const cudaError_t error = work();
    ++done_;
    return error;
  }
  // As far as it can without another queue.
  void advance() {
    while (!tasks_.empty() && (!tasks_.front().ready || tasks_.front().ready())) finish_one();
  }

 private:
  struct Task {
    Work work;
    std::function<bool()> ready;
  };
  std::deque<Task> tasks_;
  uint64_t added_ = 0, done_ = 0;
};

}  // namespace infini::emulation

// Threads that help a call on the caller's own thread (the *Sync methods) with the units of a stage.
//
// Such a call is over in microseconds, which is what waking a thread takes. So the threads of the crew wait a moment awake
// after each stage: tokens decoded one after another find them there. One call at a time has them; others work alone.
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>

#include "core/backend.h"

namespace infini {

class Crew {
 public:
  // All units of a stage, on this thread and on at most threads - 1 of the crew's. Throws what a unit threw.
  static void run(Work& work, int units, int threads);

 private:
  Crew() = default;
  static Crew& instance();
  void run_together(Work& work, int units, int threads);
  void start_threads(int wanted);
  void thread_main();
  void take_units();
  bool wait_for_stage(int seen);

  std::mutex turn_;  // held by the call that has the crew
  int threads_ = 0;  // guarded by turn_

  // The stage at work. A member counts itself in before it looks, and the call waits for those who are in before it
  // goes: so nobody touches a stage that is over.
  Work* work_ = nullptr;
  int units_ = 0;
  std::atomic<int> places_{0};  // for so many members more
  std::atomic<int> next_unit_{0};
  std::atomic<int> inside_{0};
  std::atomic<bool> open_{false};
  std::mutex failed_;
  std::exception_ptr failure_;

  std::atomic<int> stage_{0};   // counts the stages
  std::atomic<int> asleep_{0};
  std::mutex sleep_;
  std::condition_variable woken_;
};

}  // namespace infini

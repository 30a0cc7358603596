#include "core/crew.h"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace infini {
namespace {

// Between two tokens of a loop in JavaScript there are a few microseconds.
constexpr std::chrono::microseconds kAwake{50};
// A stage of fewer units is over before a sleeping thread is awake.
constexpr int kWorthWaking = 4;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

}  // namespace

void Crew::run(Work& work, int units, int threads) {
  Crew& crew = instance();
  std::unique_lock turn(crew.turn_, std::defer_lock);
  if (units > 1 && threads > 1 && turn.try_lock()) return crew.run_together(work, units, threads);
  for (int unit = 0; unit < units; ++unit) work.run(unit);
}

// For the life of the process, as its threads.
Crew& Crew::instance() {
  static Crew& crew = *new Crew;
  return crew;
}

void Crew::run_together(Work& work, int units, int threads) {
  start_threads(threads - 1);
  work_ = &work;
  units_ = units;
  failure_ = nullptr;
  next_unit_ = 0;
  places_ = threads - 1;
  open_ = true;
  ++stage_;
  if (asleep_ > 0 && units >= kWorthWaking) {
    std::lock_guard lock(sleep_);  // who is about to sleep looks again under it
    woken_.notify_all();
  }
  take_units();
  open_ = false;
  for (int i = 0; inside_ > 0; ++i) i < 1000 ? pause() : std::this_thread::yield();  // or it can not go on
  if (failure_) std::rethrow_exception(failure_);
}

// As many as the machine can run beside the caller; without any the caller does all.
void Crew::start_threads(int wanted) {
  static const int most = std::max(1, int(std::thread::hardware_concurrency())) - 1;
  try {
    while (threads_ < std::min(wanted, most)) {
      std::thread([this] { thread_main(); }).detach();
      ++threads_;
    }
  } catch (const std::system_error&) {
  }
}

void Crew::take_units() {
  try {
    for (int unit; (unit = next_unit_++) < units_;) work_->run(unit);
  } catch (...) {
    std::lock_guard lock(failed_);
    if (!failure_) failure_ = std::current_exception();
    next_unit_ = units_;
  }
}

void Crew::thread_main() {
  for (int seen = 0;;) {
    if (!wait_for_stage(seen)) continue;
    seen = stage_;
    ++inside_;
    if (open_ && --places_ >= 0) take_units();
    --inside_;
  }
}

// Awake for a moment, then asleep. True when there is another stage than the one seen.
bool Crew::wait_for_stage(int seen) {
  const auto deadline = std::chrono::steady_clock::now() + kAwake;
  do {
    for (int i = 0; i < 64; ++i) {
      if (stage_ != seen) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  std::unique_lock lock(sleep_);
  ++asleep_;
  // Not wait(): its symbol is newer than the libstdc++ of RHEL 9.
  woken_.wait_for(lock, std::chrono::hours(1), [&] { return stage_ != seen; });
  --asleep_;
  return stage_ != seen;
}

}  // namespace infini

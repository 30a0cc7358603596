// One per process and device: the thread pool that all streams of the process share, and the order of their calls.
//
// Calls on one stream run one after another, in call order; the first call of every stream is at work at once.
// Threads take units from these calls in turn, so a long call delays others by one unit, not by its length.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "core/backend.h"
#include "core/stream.h"

namespace infini {

class Engine {
 public:
  Engine(std::unique_ptr<Ledger> ledger, std::unique_ptr<Backend> backend)
      : ledger_(std::move(ledger)), backend_(std::move(backend)) {}

  DeviceInfo info() const { return backend_->info(); }
  Ledger& ledger() { return *ledger_; }
  std::shared_ptr<Stream> create_stream(const StreamConfig& config, std::shared_ptr<ThreadLimit> limit);

  // Throws Error when no thread can be had.
  void submit(const std::shared_ptr<Call>& call);
  // The call fails with `reason` at the next unit's end, unless it is being committed already.
  void cancel(const std::shared_ptr<Call>& call, const Error& reason);
  void cancel_all(Stream& stream, const Error& reason);

 private:
  using Lock = std::unique_lock<std::mutex>;

  void start_threads(int wanted);
  void thread_main();
  std::shared_ptr<Call> pick();
  void run_units(const std::shared_ptr<Call>& call, Lock& lock);
  void advance(const std::shared_ptr<Call>& call, Lock& lock);
  void finish(const std::shared_ptr<Call>& call, Lock& lock);
  void cancel_locked(const std::shared_ptr<Call>& call, const Error& reason,
                     std::vector<std::shared_ptr<Call>>& finished);
  void activate_next(const std::shared_ptr<Call>& call);
  void deliver(const std::shared_ptr<Call>& call);

  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<Backend> backend_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Call>> active_;  // the first call of every stream that has one
  size_t turn_ = 0;                            // where in active_ the next pick starts
  int threads_ = 0;
};

}  // namespace infini

// One per process and device: the threads that all streams of the process share, and the order of their calls.
//
// Calls on one stream run one after another, in call order; a call on a batch waits for its turn on every one of its
// streams. All calls that have their turn are at work at once. Threads take units from them in turn, so a long call
// delays others by one unit, not by its length. On a backend that gathers one thread starts the stages of all of
// them together, round by round.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "core/call.h"

namespace infini {

class Engine {
 public:
  Engine(std::unique_ptr<Ledger> ledger, std::unique_ptr<Backend> backend)
      : ledger_(std::move(ledger)), backend_(std::move(backend)) {}

  DeviceInfo info() const { return backend_->info(); }
  Backend& backend() { return *backend_; }
  Ledger& ledger() { return *ledger_; }
  std::shared_ptr<Stream> create_stream(const StreamConfig& config);

  // All of them at once, in this order. Throws Error when no thread can be had, or std::bad_alloc; then none is submitted.
  void submit(const std::vector<std::shared_ptr<Call>>& calls);
  // Each call fails with `reason` at its next unit's end, unless it is being committed already. All of them at once:
  // those that have not begun never do. Like all that ends calls, it needs no memory.
  void cancel(std::span<const std::shared_ptr<Call>> calls, const Error& reason) noexcept;
  void cancel_all(Stream& stream, const Error& reason) noexcept;
  void cancel_all(Batch& batch, const Error& reason) noexcept;

 private:
  using Lock = std::unique_lock<std::mutex>;
  using Calls = std::vector<std::shared_ptr<Call>>;

  void start_threads(int wanted);
  void thread_main();
  std::shared_ptr<Call> pick();
  void run_units(const std::shared_ptr<Call>& call, Lock& lock);
  void gather_main();
  void prepare_round(Calls& round, Calls& waiting, Lock& lock);
  void run_round(const Calls& calls, Lock& lock);
  void advance(const std::shared_ptr<Call>& call, Lock& lock);
  void finish(const std::shared_ptr<Call>& call, Lock& lock);
  void enqueue(const Calls& calls);
  void dequeue(const std::shared_ptr<Call>& call);
  void activate(const std::shared_ptr<Call>& call);
  void cancel_queued(Stream& stream, const Batch* batch, const Error& reason);
  bool cancel_locked(const std::shared_ptr<Call>& call, const Error& reason);
  void deliver(const std::shared_ptr<Call>& call);
  void deliver_all(std::shared_ptr<Call> first);

  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<Backend> backend_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Calls active_;     // those that have their turn; with room for all that wait
  size_t turn_ = 0;  // where in active_ the next pick starts
  int threads_ = 0;
  size_t submitted_ = 0;  // and not dequeued
};

}  // namespace infini

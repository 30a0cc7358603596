// A stream, whatever the device: its configuration, its place in the token count, its life.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include "core/backend.h"
#include "core/buffer.h"
#include "core/error.h"

namespace infini {

class Stream;
class Engine;

// How many threads the streams of one device handle may use at once.
struct ThreadLimit {
  int most;
  int running = 0;  // guarded by the engine's lock
};

enum class CallKind : uint8_t { Attend, Retrieve };

// One asynchronous call. It owns what it needs: the caller's arrays are his own again once it is submitted.
struct Call {
  CallKind kind;
  std::shared_ptr<Stream> stream;
  Tensors tensors;  // in `staging`
  Buffer staging;
  std::function<void(std::shared_ptr<Call>)> done;  // called once, on any thread

  // The outcome, valid in done().
  std::optional<Error> error;
  int64_t tokens_after = 0;  // without an error: the stream's committed tokens

 private:
  friend class Engine;
  std::unique_ptr<Work> work;
  int units = 0, next_unit = 0, running = 0;
  bool advancing = false;   // a thread is between two stages
  bool committing = false;  // too late to cancel
  std::optional<Error> cancelled;
};

class Stream : public std::enable_shared_from_this<Stream> {
 public:
  Stream(std::unique_ptr<StreamState> state, const StreamConfig& config, std::shared_ptr<ThreadLimit> limit,
         Ledger& ledger);
  ~Stream();

  // Cuts the call at segment borders and hands it to the device.
  std::unique_ptr<Work> begin(CallKind kind, const Tensors& tensors);
  void commit(CallKind kind, const Tensors& tensors, Work& work) noexcept;

  // On the calling thread, from start to end. Throws Error.
  void run_now(CallKind kind, const Tensors& tensors);

  std::shared_ptr<Stream> fork() const;
  void reset();
  void read_memory(float* matrix, double* normalizer) const { state_->read_memory(matrix, normalizer); }
  int64_t byte_length() const { return state_->byte_length(); }
  int64_t tokens() const { return tokens_; }

  const StreamConfig config;
  const std::shared_ptr<ThreadLimit> limit;

 private:
  friend class Engine;
  std::unique_ptr<StreamState> state_;
  Ledger& ledger_;
  int64_t tokens_ = 0;                       // committed
  std::deque<std::shared_ptr<Call>> calls_;  // in call order; the front one is at work; guarded by the engine's lock
};

}  // namespace infini

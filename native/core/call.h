// One asynchronous call, from its submission to its outcome.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/batch.h"
#include "core/forward.h"
#include "core/stream.h"

namespace infini {

// How many threads the streams of one device handle may use at once.
struct ThreadLimit {
  int most;
  int running = 0;  // guarded by the engine's lock
};

// It owns what it needs: what JavaScript does to its own references meanwhile does not matter.
struct Call {
  CallKind kind;
  std::shared_ptr<Stream> stream;        // Attend, Retrieve; Snapshot: its image is copied to tensors.output
  std::shared_ptr<Batch> batch;          // Step
  std::unique_ptr<Forward> forward;      // Forward: its logits are in tensors.output
  std::shared_ptr<TensorMemory> source;  // Read: is copied to tensors.output
  std::shared_ptr<ThreadLimit> limit;
  Tensors tensors;
  std::vector<std::shared_ptr<TensorMemory>> memory;  // what `tensors` lie in
  size_t output_bytes = 0;  // of a Snapshot: at first the room for it
  std::function<void(std::shared_ptr<Call>)> done;    // called once, on any thread

  // The outcome, valid in done().
  std::optional<Error> error;
  int64_t tokens_after = 0;  // Attend, Retrieve, Snapshot, without an error: the stream's committed tokens

  // It has its turn when it is the first in the queue of each of these.
  std::span<const std::shared_ptr<Stream>> streams() const {
    if (batch) return batch->streams;
    if (forward) return forward->streams;
    return {&stream, stream ? size_t(1) : size_t(0)};
  }

 private:
  friend class Engine;
  std::unique_ptr<Work> begin(Backend& backend);
  void commit();

  std::unique_ptr<Work> work;
  int behind = 0;  // in how many streams' queues others are before it
  int units = 0, next_unit = 0, running = 0;
  bool advancing = false;   // a thread is between two stages
  bool committing = false;  // too late to cancel
  std::optional<Error> cancelled;
  std::exception_ptr thrown;   // by its stage of a round
  std::shared_ptr<Call> next;  // in a list of calls to deliver
};

}  // namespace infini

// Streams of one configuration that step together: one token each, all or nothing.
#pragma once

#include <memory>
#include <vector>

#include "core/backend.h"
#include "core/stream.h"

namespace infini {

class Batch {
 public:
  // The streams are distinct, of one backend and of one configuration.
  Batch(Backend& backend, std::vector<std::shared_ptr<Stream>> streams);

  std::unique_ptr<Work> begin(const Tensors& packed);
  void commit(Work& work);

  // On the calling thread, which may have the help of others, from start to end. Throws Error.
  void run_now(const Tensors& packed, int threads);

  const std::vector<std::shared_ptr<Stream>> streams;
  const StreamConfig& config() const { return streams.front()->config; }

 private:
  Backend& backend_;
  std::unique_ptr<BatchState> state_;
  std::vector<Position> positions_;  // of the step that begins
};

}  // namespace infini

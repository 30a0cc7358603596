// A chunk's way through a model: dense layers and attention in turn (core/model.h), for the tokens of several sessions.
// All or nothing: the streams' works are committed when the whole chunk is through.
#pragma once

#include <memory>
#include <vector>

#include "core/batch.h"
#include "core/model.h"
#include "core/stream.h"

namespace infini {

class Forward {
 public:
  // streams: [session][layer], distinct; counts: the chunk's tokens of each session, at least one, in order. batches: one
  // per layer, of the layer's streams in order of the sessions, for chunks with one token of each; or none.
  Forward(std::shared_ptr<const Model> model, std::vector<std::shared_ptr<Stream>> streams,
          std::vector<std::shared_ptr<Batch>> batches, std::vector<int64_t> counts, Chunk chunk);

  std::unique_ptr<Work> begin();

  const std::vector<std::shared_ptr<Stream>> streams;

 private:
  friend class ForwardWork;

  const std::shared_ptr<const Model> model_;
  const std::vector<std::shared_ptr<Batch>> batches_;
  const std::vector<int64_t> counts_;
  const Chunk chunk_;
};

}  // namespace infini

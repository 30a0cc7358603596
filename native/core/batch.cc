#include "core/batch.h"

namespace infini {

Batch::Batch(Backend& backend, std::vector<std::shared_ptr<Stream>> given)
    : streams(std::move(given)), backend_(backend), positions_(streams.size()) {
  std::vector<StreamState*> states;
  for (const auto& stream : streams) states.push_back(&stream->state());
  state_ = backend.create_batch(config(), std::move(states));
}

std::unique_ptr<Work> Batch::begin(const Tensors& packed) {
  for (size_t i = 0; i < streams.size(); ++i) positions_[i] = streams[i]->position();
  return state_->step(packed, positions_);
}

void Batch::commit(Work& work) {
  work.commit();
  for (const auto& stream : streams) stream->count(1);
}

void Batch::run_now(const Tensors& packed, int threads) {
  const auto work = begin(packed);
  run_to_end(backend_, *work, threads);
  commit(*work);
}

}  // namespace infini

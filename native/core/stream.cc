#include "core/stream.h"

#include "core/crew.h"
#include "core/image.h"

namespace infini {

Stream::Stream(Backend& backend, std::unique_ptr<StreamState> state, const StreamConfig& config)
    : config(config), backend_(backend), state_(std::move(state)) {
  ++backend_.ledger.streams;
}

Stream::~Stream() { --backend_.ledger.streams; }

std::unique_ptr<Work> Stream::begin(CallKind kind, const Tensors& tensors) {
  const auto [open, absorbed] = position();
  if (kind == CallKind::Retrieve) return state_->retrieve(tensors, absorbed);
  return state_->attend(tensors, Pieces(open, tensors.tokens, config.segment_length), absorbed);
}

void Stream::commit(CallKind kind, const Tensors& tensors, Work& work) {
  work.commit();
  if (kind == CallKind::Attend) count(tensors.tokens);
}

void Stream::count(int64_t tokens) noexcept {
  const int64_t before = tokens_ / config.segment_length;
  tokens_ += tokens;
  backend_.ledger.tokens += tokens;
  backend_.ledger.segments += tokens_ / config.segment_length - before;
}

void Stream::run_now(CallKind kind, const Tensors& tensors, int threads) {
  const auto work = begin(kind, tensors);
  run_to_end(backend_, *work, threads);
  commit(kind, tensors, *work);
}

std::shared_ptr<Stream> Stream::fork() const {
  auto copy = std::make_shared<Stream>(backend_, state_->fork(), config);
  copy->tokens_ = tokens_;
  return copy;
}

void Stream::read_image(void* data) const {
  const int64_t open = position().open;
  const Image image(config, open, data);
  state_->read_memory(image.matrix, image.normalizer);
  state_->read_segment(open, image.keys, image.values);
}

void Stream::write_image(int64_t tokens, const void* data, size_t bytes) {
  check_image(config, tokens, data, bytes);
  const int64_t open = tokens % config.segment_length;
  const Image image(config, open, const_cast<void*>(data));
  state_->write(image.matrix, image.normalizer, open, image.keys, image.values);
  tokens_ = tokens;
}

void Stream::reset() {
  state_->reset();
  tokens_ = 0;
}

void run_to_end(Backend& backend, Work& work, int threads) {
  const KernelTime time(backend.ledger);
  while (const int units = work.next_stage()) {
    if (backend.gathers()) {
      std::vector<Work*> works;
      work.gather(works);
      backend.launch(works.data(), int(works.size()));
    }
    // While the engine's threads are at work, help would be at their cost.
    const bool alone = backend.gathers() || backend.ledger.pending_calls > 0;
    Crew::run(work, units, alone ? 1 : threads);
    backend.ledger.units += units;
  }
}

}  // namespace infini

#include "core/stream.h"

namespace infini {

Stream::Stream(std::unique_ptr<StreamState> state, const StreamConfig& config, std::shared_ptr<ThreadLimit> limit,
               Ledger& ledger)
    : config(config), limit(std::move(limit)), state_(std::move(state)), ledger_(ledger) {
  ++ledger_.streams;
}

Stream::~Stream() { --ledger_.streams; }

std::unique_ptr<Work> Stream::begin(CallKind kind, const Tensors& tensors) {
  const bool absorbed = tokens_ >= config.segment_length;
  if (kind == CallKind::Retrieve) return state_->retrieve(tensors, absorbed);
  const int64_t open = tokens_ % config.segment_length;
  return state_->attend(tensors, Pieces(open, tensors.tokens, config.segment_length), absorbed);
}

void Stream::commit(CallKind kind, const Tensors& tensors, Work& work) noexcept {
  work.commit();
  if (kind == CallKind::Retrieve) return;
  const int64_t before = tokens_ / config.segment_length;
  tokens_ += tensors.tokens;
  ledger_.tokens += tensors.tokens;
  ledger_.segments += tokens_ / config.segment_length - before;
}

void Stream::run_now(CallKind kind, const Tensors& tensors) {
  const auto work = begin(kind, tensors);
  while (const int units = work->next_stage()) {
    for (int unit = 0; unit < units; ++unit) work->run(unit);
    ledger_.units += units;
  }
  commit(kind, tensors, *work);
}

std::shared_ptr<Stream> Stream::fork() const {
  auto copy = std::make_shared<Stream>(state_->fork(), config, limit, ledger_);
  copy->tokens_ = tokens_;
  return copy;
}

void Stream::reset() {
  state_->reset();
  tokens_ = 0;
}

}  // namespace infini

#include "core/stream.h"

#include <algorithm>

#include "core/crew.h"
#include "core/image.h"

namespace infini {
namespace {

int64_t image_part_tokens(const StreamConfig& config) { return std::max<int64_t>(1, (4 << 20) / config.token_bytes()); }

}  // namespace

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

// The memory, and then some tokens in each part.
int64_t Stream::image_parts() const {
  const int64_t tokens = image_part_tokens(config);
  return 1 + (position().open + tokens - 1) / tokens;
}

void Stream::read_image_part(int64_t part, void* data) const {
  const int64_t open = position().open, most = image_part_tokens(config);
  const Image image(config, open, data);
  if (part == 0) return state_->read_memory(image.matrix, image.normalizer);
  const int64_t begin = (part - 1) * most, element = int64_t(config.element_bytes());
  state_->read_segment(begin, std::min(most, open - begin), static_cast<char*>(image.keys) + begin * config.key_width() * element,
                       static_cast<char*>(image.values) + begin * config.value_width() * element);
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

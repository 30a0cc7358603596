#include "backend/call_work.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/error.h"

namespace infini::cuda {
namespace {

constexpr double kSpanSeconds = 8e-3;      // what other calls may have to wait for, twice
constexpr int64_t kSpanBytes = 16 << 20;   // copied to the device for one span: a millisecond
constexpr int64_t kSmallBytes = 64 << 10;  // a copy of one's own takes as long as a memcpy of so much
constexpr int64_t kMostTokens = 1 << 30;   // of a job

int64_t row_bytes(const StreamConfig& config, int64_t width) { return width * int64_t(config.element_bytes()); }

// Bytes of a token that have to be copied to the device.
template <class Inputs> int64_t copied_bytes(const Inputs& inputs) {
  int64_t bytes = 0;
  for (const auto& input : inputs) {
    if (input.data && input.place == infini::Place::Host) bytes += input.row_bytes;
  }
  return bytes;
}

template <class T> T* moved(T* data, int64_t bytes) {
  return reinterpret_cast<T*>(reinterpret_cast<intptr_t>(data) + bytes);
}

}  // namespace

CallWork::CallWork(Configuration& configuration, const Tensors& tensors, bool light)
    : configuration_(configuration),
      device_(configuration.device),
      config_(configuration.config),
      tensors_(tensors),
      inputs_{{{tensors.query, tensors.query_place, row_bytes(config_, config_.query_width()), {}},
               {tensors.key, tensors.key_place, row_bytes(config_, config_.key_width()), {}},
               {tensors.value, tensors.value_place, row_bytes(config_, config_.value_width()), {}}}},
      output_row_(row_bytes(config_, config_.output_width())),
      small_(light && tensors.tokens * std::max(copied_bytes(inputs_), output_row_) <= kSmallBytes),
      most_tokens_(kMostTokens) {
  if (const int64_t copied = copied_bytes(inputs_); copied > 0 && !small_) {
    most_tokens_ = std::max<int64_t>(1, kSpanBytes / copied);
  }
  if (tensors.output_visible && !small_) ensure(result_, tensors.tokens * output_row_);
}

double CallWork::most_cost() const {
  return small_ ? std::numeric_limits<double>::infinity() : configuration_.cost_of(kSpanSeconds) / device_.sharing;
}

int CallWork::next_stage() {
  device_.require_working();
  const bool failed = failure_ != kNoFailure;
  if (!failed && begin_ == tensors_.tokens) return 0;
  request_ = Request();
  request_.configuration = &configuration_;
  if (failed) {
    if (!check_) check_.emplace(configuration_, tensors_);
    check_->plan(request_);
  } else {
    const Device::Scope scope(device_);
    plan(request_);
    ++spans_;
  }
  return 1;
}

void CallWork::launch(std::vector<Request*>& requests) {
  if (!check_ || check_->needs_device()) requests.push_back(&request_);
}

void CallWork::run(int) {
  const Device::Scope scope(device_);
  if (check_) {
    const Failure found = check_->run(request_);
    if (found != kNoFailure) throw Error::non_finite(infini::Site(found % 8), int64_t(found / 8));
    if (check_->done()) throw Error::non_finite(infini::Site(failure_ % 8), int64_t(failure_ / 8));
    return;
  }
  settle();
  latest_ = {std::move(request_.round), request_.place};
  begin_ = end_;
  if (begin_ < tensors_.tokens) return;
  settle();
  // The call may wait long for its commit, and others can use the round.
  if (!small_ || writes_in_place()) latest_.round.reset();
}

void CallWork::settle() {
  if (!latest_.round) return;
  latest_.round->wait();
  failure_ = std::min(failure_, latest_.round->failure(latest_.place));
}

void CallWork::land() noexcept {
  const Device::Scope scope(device_);
  for (const auto& round : {latest_.round, request_.round}) {
    try {
      if (round) round->wait();
    } catch (...) {
      // The device is lost, and what was under way with it.
    }
  }
}

void CallWork::reserve_workspace(int64_t pieces, int64_t borders) {
  const size_t bytes = configuration_.workspace_bytes(pieces, borders);
  std::lock_guard lock(device_.queue);
  device_.reserve_workspace(bytes);
}

void CallWork::ensure(Block& block, int64_t bytes) {
  if (int64_t(block.bytes()) >= bytes) return;
  block = Block();
  block = device_.memory.take(size_t(bytes), &Ledger::scratch_bytes, "the scratch of one call");
}

// Sees to it that the rows from `first` to end_ are on the device, and returns where.
const void* CallWork::bring(Request& request, int which, int64_t first, int64_t last) {
  Input& input = inputs_[which];
  if (input.place == infini::Place::Device) return moved(input.data, first * input.row_bytes);
  if (small_) {
    request.letters[which] = {input.data, size_t(tensors_.tokens * input.row_bytes)};
    return nullptr;
  }
  if (begin_ == first) {
    input.turn ^= 1;
    input.rows[input.turn].end = first;
  }
  auto& [block, end] = input.rows[input.turn];
  ensure(block, (last - first) * input.row_bytes);
  request.uploads.push_back({block.data() + (end - first) * input.row_bytes, moved(input.data, end * input.row_bytes),
                             size_t((end_ - end) * input.row_bytes)});
  end = end_;
  return block.data();
}

void CallWork::place(Request& request, int64_t first, int64_t last) {
  request.job.query = moved(bring(request, 0, begin_, end_), (first - begin_) * inputs_[0].row_bytes);
  if (tensors_.key) {
    request.job.key = bring(request, 1, first, last);
    request.job.value = bring(request, 2, first, last);
  }
  place_output(request, first);
}

void CallWork::place_output(Request& request, int64_t first) {
  const int64_t span_bytes = (end_ - begin_) * output_row_;
  if (writes_in_place()) {
    request.job.output = moved(tensors_.output, first * output_row_);
  } else if (small_) {
    request.output_bytes = size_t(span_bytes);
    request.fetch_output = tensors_.output_place == infini::Place::Host;
  } else if (result_) {
    request.job.output = result_.data() + first * output_row_;
  } else {
    Block& block = outputs_[spans_ % 2];
    ensure(block, span_bytes);
    request.job.output = moved(block.data(), (first - begin_) * output_row_);
    request.downloads.push_back({moved(tensors_.output, begin_ * output_row_), block.data(), size_t(span_bytes)});
  }
}

void CallWork::publish() {
  if (writes_in_place()) return;
  const Device::Scope scope(device_);
  const size_t bytes = size_t(tensors_.tokens * output_row_);
  const bool to_host = tensors_.output_place == infini::Place::Host;
  if (small_ && to_host) {
    std::memcpy(tensors_.output, latest_.round->output(latest_.place), bytes);
  } else if (small_ || result_) {
    const void* from = small_ ? latest_.round->output_on_device(latest_.place) : result_.data();
    to_host ? device_.download(tensors_.output, from, bytes) : device_.copy(tensors_.output, from, bytes);
  }
}

}  // namespace infini::cuda

// A step of a batch on the CPU: the very work that each stream's token makes alone, so that the results are the
// same bits; only who runs which part when is decided here.
#include "cpu/batch_state.h"

#include <algorithm>
#include <chrono>

#include "cpu/call_work.h"

namespace infini::cpu {
namespace {

constexpr std::chrono::milliseconds kUnitTime{2};
// Streams that absorb a segment take scratch of the size of a segment: so many bytes of it at once.
constexpr int64_t kWaveBytes = 64 << 20;

class BatchWork final : public CallWork {
 public:
  BatchWork(const std::vector<CpuStreamState*>& states, const Tensors& packed, const std::vector<Position>& positions)
      : CallWork(*states.front(), packed), states_(states), positions_(positions) {}

  int next_stage() override {
    if (stage_ == Stage::Start) {
      stage_ = Stage::Check;
      return check_units();
    }
    if (stage_ == Stage::Check) {
      raise_input_failure();
      stage_ = Stage::Run;
    }
    if (next_part_ < parts_.size()) return units(parts_.size() - next_part_);  // units ended by their time
    parts_.clear();
    next_part_ = 0;
    for (;;) {
      for (size_t i = wave_; i < works_.size(); ++i) plan(i);
      if (!parts_.empty()) return units(parts_.size());
      if (works_.size() == states_.size()) return 0;
      begin_wave();
    }
  }

  void run(int unit) override {
    if (stage_ == Stage::Check) return check(unit);
    const auto deadline = std::chrono::steady_clock::now() + kUnitTime;
    do {
      const size_t index = next_part_++;
      if (index >= parts_.size()) return;
      works_[parts_[index].stream]->run(parts_[index].unit);
    } while (!cancelled && std::chrono::steady_clock::now() < deadline);
  }

  void commit() noexcept override {
    for (const auto& work : works_) work->commit();
    publish();
  }

 private:
  enum class Stage { Start, Check, Run };
  struct Part {
    size_t stream;
    int unit;
  };

  // Enough for every thread to find one; each unit takes parts until its time is over.
  int units(size_t parts) const { return int(std::min<size_t>(parts, 4 * size_t(state_.threads))); }

  void raise_input_failure() const {
    try {
      failure_.raise();
    } catch (const Error& error) {
      throw Error::of_stream(Error::non_finite(error.site, 0), error.token);
    }
  }

  // The next stage of one stream's token.
  void plan(size_t stream) {
    if (done_[stream]) return;
    int units = 0;
    try {
      units = works_[stream]->next_stage();
    } catch (const Error& error) {
      throw Error::of_stream(error, int64_t(stream));
    }
    done_[stream] = units == 0;
    for (int unit = 0; unit < units; ++unit) parts_.push_back({stream, unit});
  }

  // The streams that go on together, behind those that are done.
  void begin_wave() {
    wave_ = works_.size();
    const int64_t absorb_bytes = config_.kv_heads * absorb_elements(config_) * int64_t(sizeof(float));
    for (int64_t bytes = 0; works_.size() < states_.size() && bytes < kWaveBytes;) {
      const size_t i = works_.size();
      const Position at = positions_[i];
      if (at.open + 1 == config_.segment_length) bytes += absorb_bytes;
      works_.push_back(make_attend(*states_[i], token(i), Pieces(at.open, 1, config_.segment_length), at.absorbed, true));
      done_.push_back(false);
    }
  }

  // One stream's token of the packed tensors.
  Tensors token(size_t i) const {
    const int64_t element = int64_t(config_.element_bytes());
    auto at = [&](const void* data, int64_t width) {
      return static_cast<char*>(const_cast<void*>(data)) + int64_t(i) * width * element;
    };
    Tensors tensors;
    tensors.tokens = 1;
    tensors.query = at(tensors_.query, config_.query_width());
    tensors.key = at(tensors_.key, config_.key_width());
    tensors.value = at(tensors_.value, config_.value_width());
    tensors.output = at(tensors_.output, config_.output_width());
    return tensors;
  }

  const std::vector<CpuStreamState*>& states_;
  const std::vector<Position> positions_;
  Stage stage_ = Stage::Start;
  std::vector<std::unique_ptr<Work>> works_;  // of the streams so far
  std::vector<bool> done_;
  size_t wave_ = 0;  // the first stream of the wave
  std::vector<Part> parts_;
  std::atomic<size_t> next_part_{0};
};

}  // namespace

CpuBatchState::CpuBatchState(const std::vector<StreamState*>& streams) {
  for (StreamState* stream : streams) states_.push_back(static_cast<CpuStreamState*>(stream));
}

std::unique_ptr<Work> CpuBatchState::step(const Tensors& packed, const std::vector<Position>& positions) {
  return std::make_unique<BatchWork>(states_, packed, positions);
}

}  // namespace infini::cpu

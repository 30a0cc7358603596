#include "core/forward.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace infini {

// At each moment some works are at work side by side: one of the dense layers, or the attention of each session.
class ForwardWork final : public Work {
 public:
  explicit ForwardWork(Forward& call) : call_(call), run_(call.model_->dense->begin(call.chunk_)) {}

  ~ForwardWork() override {
    // Before the activations that they use.
    working_.clear();
    attended_.clear();
  }

  int next_stage() override {
    for (;;) {
      const int units = next_stage_of_each();
      if (units > 0) return units;
      if (!begin_next()) return 0;
    }
  }

  void run(int unit) override {
    const auto part = std::upper_bound(ends_.begin(), ends_.end(), unit) - ends_.begin();
    Work& work = *active_[size_t(part)]->work;
    if (cancelled) work.cancelled = true;
    try {
      work.run(unit - (part > 0 ? ends_[size_t(part) - 1] : 0));
    } catch (const Error& error) {
      throw told(error, *active_[size_t(part)]);
    }
  }

  void gather(std::vector<Work*>& works) override {
    for (const Part* part : active_) part->work->gather(works);
  }

  void commit() override {
    for (const Part& part : attended_) {
      if (part.session == kAll) {
        call_.batches_[size_t(part.layer)]->commit(*part.work);
      } else {
        stream(part.session, part.layer).commit(CallKind::Attend, tensors(part.session), *part.work);
      }
    }
  }

 private:
  static constexpr int kAll = -1;  // sessions together

  struct Part {
    std::unique_ptr<Work> work;
    int layer, session;
    bool done = false;
  };

  Stream& stream(int session, int layer) const {
    return *call_.streams[size_t(session * call_.model_->config.layers + layer)];
  }

  Tensors tensors(int session) const {
    const auto& counts = call_.counts_;
    return run_->tensors(std::accumulate(counts.begin(), counts.begin() + session, int64_t(0)), counts[size_t(session)]);
  }

  // Takes every work to its next stage; returns the units of all of them.
  int next_stage_of_each() {
    active_.clear();
    ends_.clear();
    int total = 0;
    for (Part& part : working_) {
      if (part.done) continue;
      int units = 0;
      try {
        units = part.work->next_stage();
      } catch (const Error& error) {
        throw told(error, part);
      }
      part.done = units == 0;
      if (part.done) continue;
      total += units;
      active_.push_back(&part);
      ends_.push_back(total);
    }
    return total;
  }

  // False when the chunk is through.
  bool begin_next() {
    const int layers = call_.model_->config.layers;
    if (next_ % 2 == 0) {
      for (Part& part : working_) attended_.push_back(std::move(part));
    }
    working_.clear();
    const int layer = next_ / 2;
    if (next_ > 2 * layers || (layer == layers && call_.chunk_.wanted.empty())) {
      check_logits();
      return false;
    }
    if (next_++ % 2 == 0) {
      working_.push_back({run_->step(layer), layer, kAll});
    } else if (!call_.batches_.empty()) {
      const auto tensors = run_->tensors(0, int64_t(call_.counts_.size()));
      working_.push_back({call_.batches_[size_t(layer)]->begin(tensors), layer, kAll});
    } else {
      for (int session = 0; session < int(call_.counts_.size()); ++session) {
        working_.push_back({stream(session, layer).begin(CallKind::Attend, tensors(session)), layer, session});
      }
    }
    return true;
  }

  void check_logits() const {
    const Chunk& chunk = call_.chunk_;
    const int64_t vocabulary = call_.model_->config.vocabulary;
    for (size_t i = 0; i < chunk.wanted.size(); ++i) {
      const float* logits = chunk.logits + int64_t(i) * vocabulary;
      if (!std::all_of(logits, logits + vocabulary, [](float logit) { return std::isfinite(logit); })) {
        Error error = Error::non_finite(Site::Output, call_.counts_[i] - 1);
        error.stream = int64_t(i);
        throw error;
      }
    }
  }

  // A session's tokens are counted from its own first one in the call.
  Error told(Error error, const Part& part) const {
    Error told(error.code, "Layer " + std::to_string(part.layer) + ": " + error.what());
    told.site = error.site;
    told.token = error.token;
    told.stream = part.session == kAll ? error.stream : part.session;
    return told;
  }

  Forward& call_;
  const std::unique_ptr<DenseRun> run_;
  int next_ = 0;  // 2 l: the dense layers before the attention of layer l; 2 l + 1: that attention
  std::vector<Part> working_;
  std::vector<Part> attended_;  // to be committed
  std::vector<Part*> active_;   // of working_: those with units in this stage
  std::vector<int> ends_;       // and where each one's units end
};

Forward::Forward(std::shared_ptr<const Model> model, std::vector<std::shared_ptr<Stream>> streams,
                 std::vector<std::shared_ptr<Batch>> batches, std::vector<int64_t> counts, Chunk chunk)
    : streams(std::move(streams)),
      model_(std::move(model)),
      batches_(std::move(batches)),
      counts_(std::move(counts)),
      chunk_(std::move(chunk)) {}

std::unique_ptr<Work> Forward::begin() { return std::make_unique<ForwardWork>(*this); }

}  // namespace infini

// What attend, retrieve and a batch's step have in common on the CPU: the check of their inputs, the record of a
// failure, and an output that nobody sees before all has gone well.
#pragma once

#include "core/error.h"
#include "cpu/kernels.h"
#include "cpu/stream_state.h"

namespace infini::cpu {

// The failure to report does not depend on which thread met one first: the smallest token, then the order of Site.
class FirstFailure {
 public:
  void note(int64_t token, Site site) {
    const int64_t key = token * 8 + int64_t(site);
    int64_t seen = first_.load();
    while (key < seen && !first_.compare_exchange_weak(seen, key)) {
    }
  }
  void raise() const {
    const int64_t key = first_.load();
    if (key != kNone) throw Error::non_finite(Site(key % 8), key / 8);
  }

 private:
  static constexpr int64_t kNone = INT64_MAX;
  std::atomic<int64_t> first_{kNone};
};

class CallWork : public Work {
 protected:
  CallWork(CpuStreamState& state, const Tensors& tensors);

  int check_units() const;
  void check(int unit);
  void publish() noexcept;  // in commit(): the output that was computed aside
  void* workspace() const { return thread_workspace(config_, state_.ledger); }
  Rows query_rows(int kv_head, int64_t token, int64_t begin, int64_t end) const;
  void* output_rows(int kv_head, int64_t token) const;

  CpuStreamState& state_;
  const StreamConfig& config_;
  Tensors tensors_;
  const Kernels& kernels_;
  FirstFailure failure_;

 private:
  int64_t check_tokens() const;
  size_t output_bytes() const { return size_t(tensors_.tokens * config_.output_width()) * config_.element_bytes(); }

  Buffer aside_;
  void* visible_output_ = nullptr;
};

// What absorbing one head's segment takes beside the state: sigma(K) in whole panels, then the residual; in elements.
inline int64_t feature_elements(const StreamConfig& config) {
  return padded(int64_t(config.segment_length)) * config.head_dim;
}
inline int64_t absorb_elements(const StreamConfig& config) {
  return feature_elements(config) + int64_t(config.segment_length) * padded(config.value_dim);
}

// The work of CpuStreamState::attend. checked: the inputs are known to be finite.
std::unique_ptr<Work> make_attend(CpuStreamState& state, const Tensors& tensors, const Pieces& pieces, bool absorbed,
                                  bool checked);

}  // namespace infini::cpu

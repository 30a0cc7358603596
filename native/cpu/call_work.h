// What attend and retrieve have in common on the CPU: the check of their inputs and the record of a failure.
#pragma once

#include "core/error.h"
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
  CallWork(CpuStreamState& state, const Tensors& tensors)
      : state_(state), config_(state.config), tensors_(tensors), kernels_(select_kernels()) {}

  int check_units() const;
  void check(int unit);
  void* workspace() const { return thread_workspace(config_, state_.ledger); }
  Rows query_rows(int kv_head, int64_t token, int64_t begin, int64_t end) const;
  void* output_rows(int kv_head, int64_t token) const;

  CpuStreamState& state_;
  const StreamConfig& config_;
  const Tensors tensors_;
  const Kernels& kernels_;
  FirstFailure failure_;

 private:
  int64_t check_tokens() const;
};

}  // namespace infini::cpu

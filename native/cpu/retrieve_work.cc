// stream.retrieve on the CPU: A_mem alone, for any number of queries, from what is absorbed. Changes nothing.
#include <algorithm>

#include "cpu/call_work.h"

namespace infini::cpu {
namespace {

class RetrieveWork final : public CallWork {
 public:
  RetrieveWork(CpuStreamState& state, const Tensors& tensors, bool absorbed)
      : CallWork(state, tensors), absorbed_(absorbed) {
    const int64_t row_flops = 2 * int64_t(config_.head_dim) * config_.value_dim;
    tiles_per_unit_ = std::max<int64_t>(1, 4'000'000 / (row_flops * kTileRows));
    rows_ = tensors.tokens * config_.group();
    units_per_head_ = (rows_ + tiles_per_unit_ * kTileRows - 1) / (tiles_per_unit_ * kTileRows);
  }

  int next_stage() override {
    failure_.raise();
    switch (stage_++) {
      case 0: return check_units();
      case 1: return int(units_per_head_ * config_.kv_heads);
      default: return 0;
    }
  }

  void run(int unit) override {
    if (stage_ == 1) return check(unit);
    const int head = int(unit % config_.kv_heads);
    const Memory memory = state_.memory.head(config_, head);
    const int64_t first = unit / config_.kv_heads * tiles_per_unit_ * kTileRows;
    const int64_t last = std::min(rows_, first + tiles_per_unit_ * kTileRows);
    for (int64_t row = first; row < last && !cancelled; row += kTileRows) {
      const Rows rows = query_rows(head, 0, row, std::min(last, row + kTileRows));
      const int64_t overflow =
          kernels_.retrieve({state_.dims(), rows, output_rows(head, 0), config_.output_width(),
                             absorbed_ ? &memory : nullptr},
                            workspace());
      if (overflow >= 0) failure_.note(overflow, Site::Output);
    }
  }

  void commit() noexcept override { publish(); }

 private:
  bool absorbed_;
  int64_t rows_, tiles_per_unit_, units_per_head_;
  int stage_ = 0;
};

}  // namespace

std::unique_ptr<Work> CpuStreamState::retrieve(const Tensors& tensors, bool absorbed) {
  return std::make_unique<RetrieveWork>(*this, tensors, absorbed);
}

}  // namespace infini::cpu

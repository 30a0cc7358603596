// Streams that step together on the CPU.
#pragma once

#include <vector>

#include "cpu/stream_state.h"

namespace infini::cpu {

class CpuBatchState final : public BatchState {
 public:
  explicit CpuBatchState(const std::vector<StreamState*>& streams);
  std::unique_ptr<Work> step(const Tensors& packed, const std::vector<Position>& positions) override;

 private:
  std::vector<CpuStreamState*> states_;
};

}  // namespace infini::cpu

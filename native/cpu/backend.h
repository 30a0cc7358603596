// The CPU as a device.
#pragma once

#include "core/backend.h"

namespace infini::cpu {

class CpuBackend final : public Backend {
 public:
  CpuBackend(Ledger& ledger, int threads);  // throws Error(NoDevice) when INFINI_CPU names no level
  DeviceInfo info() const override;
  int64_t stream_bytes(const StreamConfig& config) const override;
  std::unique_ptr<StreamState> create(const StreamConfig& config) override;
  std::unique_ptr<BatchState> create_batch(const StreamConfig& config, std::vector<StreamState*> streams) override;
  std::unique_ptr<DenseLayers> create_dense(const ModelConfig& config, WeightSource& weights) override;

 private:
  int threads_;
};

}  // namespace infini::cpu

// A GPU as a device of the engine.
#pragma once

#include "backend/configuration.h"
#include "backend/round.h"
#include "core/backend.h"

namespace infini::cuda {

class CudaBackend final : public Backend {
 public:
  // The GPU exists and can be used (probe.h). Throws Error(Device) when it cannot be started all the same.
  CudaBackend(Ledger& ledger, int gpu);

  DeviceInfo info() const override;
  int64_t stream_bytes(const StreamConfig& config) const override { return StateBytes(config).charged(); }
  uint64_t free_bytes() override;
  std::unique_ptr<StreamState> create(const StreamConfig& config) override;
  std::unique_ptr<BatchState> create_batch(const StreamConfig& config, std::vector<StreamState*> streams) override;
  std::unique_ptr<DenseLayers> create_dense(const ModelConfig& config, WeightSource& weights) override;

  std::shared_ptr<TensorMemory> allocate_device(size_t bytes) override;
  std::shared_ptr<TensorMemory> allocate_host(size_t bytes, Account account) override;
  void write(TensorMemory& to, const void* from, size_t bytes) override;
  void read(const TensorMemory& from, void* to, size_t bytes) override;

  bool gathers() const override { return true; }
  void launch(Work* const* works, int count) override;

 private:
  Device device_;
  Configurations configurations_;
  Launcher launcher_;
};

}  // namespace infini::cuda

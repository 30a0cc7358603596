// One stream on a GPU: its memory (z and M of every key-value head) and its open segment.
#pragma once

#include "backend/configuration.h"
#include "core/backend.h"

namespace infini::cuda {

class CudaStreamState final : public StreamState {
 public:
  explicit CudaStreamState(std::shared_ptr<Configuration> configuration);

  std::unique_ptr<Work> attend(const Tensors& tensors, const Pieces& pieces, bool absorbed) override;
  std::unique_ptr<Work> retrieve(const Tensors& tensors, bool absorbed) override;
  void read_memory(float* matrix, double* normalizer) const override;
  void read_segment(int64_t begin, int64_t tokens, void* keys, void* values) const override;
  void write(const float* matrix, const double* normalizer, int64_t tokens, const void* keys, const void* values) override;
  void reset() override;
  std::unique_ptr<StreamState> fork() const override;
  int64_t byte_length() const override;

  Block new_memory(Account account) const;
  Block new_cache(Account account) const;

  const std::shared_ptr<Configuration> configuration;
  Device& device;
  Block cache, memory;  // in this order: where there is no room, the larger one is refused at once
};

}  // namespace infini::cuda

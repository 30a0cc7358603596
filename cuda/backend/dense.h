// The dense layers of a model on a GPU: its weights, as they are stored, and how chunks go through them.
#pragma once

#include <memory>
#include <vector>

#include "backend/device.h"
#include "core/model.h"
#include "launch.h"

namespace infini::cuda {

// W [outputs][inputs]; a norm is one row, a table one row for each index.
struct Matrix {
  Element element = Element::Float32;
  int outputs = 0, inputs = 0;
  Block block;
};

struct DenseWeights {
  struct Layer {
    Matrix attention_norm, query, key, value, output, mlp_norm, mlp_gate, mlp_up, mlp_down;
  };

  // Read piece by piece, so that nothing of a size that matters is on the host. Throws Error.
  DenseWeights(Device& device, const ModelConfig& config, WeightSource& source);
  const Matrix& head() const { return config.tied ? embedding : own_head; }

  Device& device;
  const ModelConfig config;
  int64_t bytes = 0;
  Matrix embedding, final_norm, own_head;
  std::vector<Layer> layers;

 private:
  Matrix load(Weight weight, int layer, int outputs, int inputs, WeightSource& source, const Block& staging);
};

class CudaDenseLayers final : public DenseLayers {
 public:
  CudaDenseLayers(Device& device, const ModelConfig& config, WeightSource& source)
      : weights_(std::make_shared<DenseWeights>(device, config, source)) {}
  std::unique_ptr<DenseRun> begin(const Chunk& chunk) override;
  int64_t byte_length() const override { return weights_->bytes; }

 private:
  const std::shared_ptr<const DenseWeights> weights_;  // shared with the runs that are under way
};

}  // namespace infini::cuda

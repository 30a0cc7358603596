// The dense layers of a model on the CPU: its weights in panels, and how a chunk's rows are shared among threads.
#pragma once

#include <vector>

#include "core/buffer.h"
#include "core/model.h"
#include "cpu/kernels.h"

namespace infini::cpu {

// W [outputs][inputs], as kernels.h's Linear takes it.
struct Matrix {
  Element element = Element::F32;
  int64_t inputs = 0, outputs = 0;
  Buffer panels;

  int64_t panel_count() const { return (outputs + kOutputs - 1) / kOutputs; }
  // Element 0 of a row, whose others follow at a stride of kOutputs.
  const void* row(int64_t output) const {
    return panels.as<char>() + size_t(output / kOutputs * inputs * kOutputs + output % kOutputs) * (element == Element::F32 ? 4 : 2);
  }
};

struct DenseBlock {
  std::vector<float> attention_norm, mlp_norm;
  Matrix query, key, value, output, mlp_gate, mlp_up, mlp_down;
};

class CpuDenseLayers final : public DenseLayers {
 public:
  CpuDenseLayers(const ModelConfig& config, WeightSource& weights, Ledger& ledger, int threads);
  std::unique_ptr<DenseRun> begin(const Chunk& chunk) override;
  int64_t byte_length() const override { return bytes_; }

  const Matrix& head() const { return head_.outputs > 0 ? head_ : embedding; }

  const ModelConfig config;
  Ledger& ledger;
  const int threads;  // how many may work at once: how finely a chunk is cut, never what it computes
  Matrix embedding;
  std::vector<DenseBlock> blocks;
  std::vector<float> final_norm;

 private:
  void load(WeightSource& weights, Weight weight, int layer, int64_t outputs, int64_t inputs, Matrix& matrix);
  void load(WeightSource& weights, Weight weight, int layer, std::vector<float>& norm);

  Matrix head_;  // empty: the embedding's (tied)
  int64_t bytes_ = 0;
};

}  // namespace infini::cpu

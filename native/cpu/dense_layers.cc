#include "cpu/dense_layers.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "core/memory_budget.h"

namespace infini::cpu {
namespace {

constexpr double kUnitFlops = 32e6;  // about a millisecond
constexpr double kSmallFlops = 1e6;  // not worth waking another thread for

template <class T> void transpose_rows(const T* rows, int64_t count, int64_t inputs, T* panel) {
  for (int64_t i = 0; i < inputs; ++i) {
    for (int64_t output = 0; output < kOutputs; ++output) {
      panel[i * kOutputs + output] = output < count ? rows[output * inputs + i] : T(0);
    }
  }
}

Element element_of(DType dtype) {
  return dtype == DType::Float32 ? Element::F32 : dtype == DType::BFloat16 ? Element::BF16 : Element::F16;
}

Act act_of(Activation activation) {
  switch (activation) {
    case Activation::Silu: return Act::Silu;
    case Activation::Gelu: return Act::Gelu;
    default: return Act::GeluTanh;
  }
}

// A step's phases in order: each needs all panels of the one before, but only of its own rows.
struct Phase {
  int64_t panels;
  double flops;  // per row and panel
  std::function<void(int64_t first_row, int64_t end_row, int64_t first_panel, int64_t end_panel)> run;
};

// Many rows: each unit takes some of them through all phases. Few rows, or large matrices: phase by phase, and each unit
// takes some rows and panels.
class DenseWork final : public Work {
 public:
  DenseWork(std::vector<Phase> phases, int64_t rows, int threads) : phases_(std::move(phases)), rows_(rows) {
    double row_flops = 0;
    for (const Phase& phase : phases_) row_flops += phase.flops * double(phase.panels);
    const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
    if (row_flops * double(rows) <= kSmallFlops) {
      row_step_ = rows;
    } else if (row_flops * kTileRows <= kUnitFlops && tiles >= threads) {
      // As many tiles a unit as its time allows and still give every thread four units.
      const int64_t most = int64_t(kUnitFlops / (row_flops * kTileRows));
      row_step_ = kTileRows * std::max<int64_t>(1, std::min(most, tiles / (4 * threads)));
    }
  }

  int next_stage() override {
    if (row_step_ > 0) return std::exchange(phase_, int64_t(phases_.size())) == 0 ? units(rows_, row_step_) : 0;
    if (++phase_ > int64_t(phases_.size())) return 0;
    const Phase& phase = phases_[phase_ - 1];
    panel_step_ = std::max<int64_t>(1, int64_t(kSmallFlops / (phase.flops * double(std::min<int64_t>(rows_, kTileRows)))));
    return units(rows_, kTileRows) * units(phase.panels, panel_step_);
  }

  void run(int unit) override {
    if (row_step_ > 0) {
      const int64_t end = std::min(rows_, (unit + 1) * row_step_);
      for (int64_t row = unit * row_step_; row < end && !cancelled; row += kTileRows) {  // a tile stays in the cache from phase to phase
        for (const Phase& phase : phases_) phase.run(row, std::min<int64_t>(end, row + kTileRows), 0, phase.panels);
      }
      return;
    }
    const Phase& phase = phases_[phase_ - 1];
    const int64_t columns = units(phase.panels, panel_step_);
    const int64_t row = unit / columns * kTileRows, panel = unit % columns * panel_step_;
    phase.run(row, std::min<int64_t>(rows_, row + kTileRows), panel, std::min(phase.panels, panel + panel_step_));
  }

  void commit() noexcept override {}

 private:
  static int units(int64_t count, int64_t step) { return int((count + step - 1) / step); }

  const std::vector<Phase> phases_;
  const int64_t rows_;
  int64_t row_step_ = 0;  // rows a unit takes through all phases; 0: phase by phase
  int64_t phase_ = 0, panel_step_ = 1;
};

class CpuDenseRun final : public DenseRun {
 public:
  CpuDenseRun(const CpuDenseLayers& model, const Chunk& chunk)
      : model_(model), config_(model.config), kernels_(select_kernels()), chunk_(chunk) {
    const int64_t rows = int64_t(chunk.tokens.size()), wanted = int64_t(chunk.wanted.size());
    const int64_t query = config_.query_width(), key = config_.key_width();
    const int64_t floats = rows * (2 * config_.width + 2 * query + 2 * key + config_.mlp_width) +
                           wanted * (config_.width + query);
    const size_t bytes = size_t(floats) * sizeof(float);
    require_memory(bytes, "the activations of one call", model.ledger);
    activations_ = Buffer(bytes, model.ledger, &Ledger::scratch_bytes);
    float* next = activations_.as<float>();
    auto take = [&](int64_t count, int64_t width) { return std::exchange(next, next + count * width); };
    x_ = take(rows, config_.width);
    normal_ = take(rows, config_.width);
    query_ = take(rows, query);
    key_ = take(rows, key);
    value_ = take(rows, key);
    attended_ = take(rows, query);
    mlp_ = take(rows, config_.mlp_width);
    wanted_x_ = take(wanted, config_.width);
    wanted_attended_ = take(wanted, query);
  }

  Tensors tensors(int64_t first, int64_t count) const override {
    Tensors tensors;
    tensors.tokens = count;
    tensors.query = query_ + first * config_.query_width();
    tensors.key = key_ + first * config_.key_width();
    tensors.value = value_ + first * config_.key_width();
    tensors.output = attended_ + first * config_.query_width();
    return tensors;
  }

  std::unique_ptr<Work> step(int layer) override {
    phases_.clear();
    const bool last = layer == config_.layers;
    if (last) pick_wanted();
    if (layer == 0) embed();
    if (layer > 0) complete(model_.blocks[layer - 1]);
    if (last) {
      normalize(model_.final_norm);
      multiply(model_.head(), normal_, chunk_.logits, Act::None, Into::Store);
    } else {
      const DenseBlock& block = model_.blocks[layer];
      normalize(block.attention_norm);
      multiply(block.query, normal_, query_, Act::None, Into::Store);
      multiply(block.key, normal_, key_, Act::None, Into::Store);
      multiply(block.value, normal_, value_, Act::None, Into::Store);
    }
    const size_t rows = last ? chunk_.wanted.size() : chunk_.tokens.size();
    return std::make_unique<DenseWork>(std::move(phases_), int64_t(rows), model_.threads);
  }

 private:
  void embed() {
    phases_.push_back({1, double(config_.width), [this](int64_t first, int64_t end, int64_t, int64_t) {
                         const Matrix& table = model_.embedding;
                         for (int64_t row = first; row < end; ++row) {
                           kernels_.decode_strided(table.element, table.row(chunk_.tokens[row]), kOutputs, config_.width,
                                                   x_ + row * config_.width);
                         }
                       }});
  }

  // Only the last layer's rows whose logits are wanted go on.
  void pick_wanted() {
    const int64_t width = config_.width, query = config_.query_width();
    for (size_t i = 0; i < chunk_.wanted.size(); ++i) {
      std::memcpy(wanted_x_ + int64_t(i) * width, x_ + chunk_.wanted[i] * width, size_t(width) * sizeof(float));
      std::memcpy(wanted_attended_ + int64_t(i) * query, attended_ + chunk_.wanted[i] * query, size_t(query) * sizeof(float));
    }
    x_ = wanted_x_;
    attended_ = wanted_attended_;
  }

  // What follows the attention of a layer.
  void complete(const DenseBlock& block) {
    multiply(block.output, attended_, x_, Act::None, Into::Add);
    normalize(block.mlp_norm);
    const Act act = act_of(config_.activation);
    multiply(block.mlp_up, normal_, mlp_, config_.gated ? Act::None : act, Into::Store);
    if (config_.gated) multiply(block.mlp_gate, normal_, mlp_, act, Into::Times);
    multiply(block.mlp_down, mlp_, x_, Act::None, Into::Add);
  }

  void normalize(const std::vector<float>& norm) {
    const int64_t width = config_.width;
    const float* x = x_;
    phases_.push_back({1, 4.0 * double(width), [this, &norm, x, width](int64_t first, int64_t end, int64_t, int64_t) {
                         for (int64_t row = first; row < end; ++row) {
                           kernels_.normalize(x + row * width, norm.data(), width, config_.norm_epsilon, normal_ + row * width);
                         }
                       }});
  }

  void multiply(const Matrix& matrix, const float* x, float* y, Act act, Into into) {
    const double flops = 2.0 * double(matrix.inputs) * kOutputs;
    phases_.push_back({matrix.panel_count(), flops,
                       [this, &matrix, x, y, act, into](int64_t first, int64_t end, int64_t first_panel, int64_t end_panel) {
                         kernels_.linear({matrix.element, matrix.panels.as<void>(), matrix.inputs, matrix.outputs, end - first,
                                          x + first * matrix.inputs, matrix.inputs, y + first * matrix.outputs,
                                          matrix.outputs, first_panel, end_panel, act, into});
                       }});
  }

  const CpuDenseLayers& model_;
  const ModelConfig& config_;
  const Kernels& kernels_;
  const Chunk& chunk_;
  Buffer activations_;
  float *x_, *normal_, *query_, *key_, *value_, *attended_, *mlp_, *wanted_x_, *wanted_attended_;
  std::vector<Phase> phases_;  // of the step that is being made
};

}  // namespace

CpuDenseLayers::CpuDenseLayers(const ModelConfig& config, WeightSource& weights, Ledger& ledger, int threads)
    : config(config), ledger(ledger), threads(threads) {
  const int64_t width = config.width;
  load(weights, Weight::Embedding, 0, config.vocabulary, width, embedding);
  blocks.resize(size_t(config.layers));
  for (int layer = 0; layer < config.layers; ++layer) {
    DenseBlock& block = blocks[layer];
    load(weights, Weight::AttentionNorm, layer, block.attention_norm);
    load(weights, Weight::Query, layer, config.query_width(), width, block.query);
    load(weights, Weight::Key, layer, config.key_width(), width, block.key);
    load(weights, Weight::Value, layer, config.key_width(), width, block.value);
    load(weights, Weight::Output, layer, width, config.query_width(), block.output);
    load(weights, Weight::MlpNorm, layer, block.mlp_norm);
    if (config.gated) load(weights, Weight::MlpGate, layer, config.mlp_width, width, block.mlp_gate);
    load(weights, Weight::MlpUp, layer, config.mlp_width, width, block.mlp_up);
    load(weights, Weight::MlpDown, layer, width, config.mlp_width, block.mlp_down);
  }
  load(weights, Weight::FinalNorm, 0, final_norm);
  if (!config.tied) load(weights, Weight::Head, 0, config.vocabulary, width, head_);
}

void CpuDenseLayers::load(WeightSource& weights, Weight weight, int layer, int64_t outputs, int64_t inputs, Matrix& matrix) {
  const DType dtype = weights.dtype(weight, layer);
  matrix.element = element_of(dtype);
  matrix.inputs = inputs;
  matrix.outputs = outputs;
  const size_t element = element_bytes(dtype), panel_bytes = size_t(inputs) * kOutputs * element;
  const size_t bytes = size_t(matrix.panel_count()) * panel_bytes;
  require_memory(bytes + panel_bytes, "the weights of a model", ledger);
  matrix.panels = Buffer(bytes, ledger, &Ledger::weight_bytes);
  bytes_ += int64_t(bytes);
  std::vector<char> rows(panel_bytes);
  for (int64_t panel = 0; panel < matrix.panel_count(); ++panel) {
    const int64_t first = panel * kOutputs, count = std::min<int64_t>(kOutputs, outputs - first);
    weights.read(weight, layer, first, first + count, rows.data());
    char* to = matrix.panels.as<char>() + size_t(panel) * panel_bytes;
    if (element == 4) {
      transpose_rows(reinterpret_cast<const uint32_t*>(rows.data()), count, inputs, reinterpret_cast<uint32_t*>(to));
    } else {
      transpose_rows(reinterpret_cast<const uint16_t*>(rows.data()), count, inputs, reinterpret_cast<uint16_t*>(to));
    }
  }
}

void CpuDenseLayers::load(WeightSource& weights, Weight weight, int layer, std::vector<float>& norm) {
  const DType dtype = weights.dtype(weight, layer);
  std::vector<char> stored(size_t(config.width) * element_bytes(dtype));
  weights.read(weight, layer, 0, 1, stored.data());
  norm.resize(size_t(config.width));
  bytes_ += int64_t(norm.size() * sizeof(float));
  select_kernels().decode_strided(element_of(dtype), stored.data(), 1, config.width, norm.data());
}

std::unique_ptr<DenseRun> CpuDenseLayers::begin(const Chunk& chunk) { return std::make_unique<CpuDenseRun>(*this, chunk); }

}  // namespace infini::cpu

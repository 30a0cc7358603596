#include "backend/dense.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "backend/call_work.h"
#include "backend/configuration.h"
#include "backend/mail.h"
#include "core/error.h"

namespace infini::cuda {
namespace {

constexpr size_t kPieceBytes = 4 << 20;  // of a matrix, on its way: a copy of so much takes longer than to start it

size_t row_bytes(const Matrix& matrix) { return size_t(matrix.inputs) * (matrix.element == Element::Float32 ? 4 : 2); }

Act act_of(Activation activation) {
  switch (activation) {
    case Activation::Silu: return Act::Silu;
    case Activation::Gelu: return Act::Gelu;
    default: return Act::GeluTanh;
  }
}

// The chunk's rows on the device: all that its steps leave for one another is here.
class CudaDenseRun final : public DenseRun {
 public:
  CudaDenseRun(std::shared_ptr<const DenseWeights> weights, const Chunk& chunk);

  Tensors tensors(int64_t first, int64_t count) const override;
  std::unique_ptr<Work> step(int layer) override;

  // Within a scope and under the queue's lock.
  void enqueue(int layer);
  // Within a scope, when a step has been enqueued.
  void wait() { device.wait(done_); }
  void fetch_logits();

  Device& device;
  const int layers;

 private:
  void gather(const Matrix& table, const int* indices, int rows, float* to);
  void gather(const float* table, int width, const int* indices, int rows, float* to);
  void normalize(const Matrix& norm, int rows, const float* x, float* y);
  void multiply(const Matrix& matrix, int rows, const float* x, float* y, Act act = Act::None, Into into = Into::Store);

  const std::shared_ptr<const DenseWeights> weights_;
  const ModelConfig& config_;
  const Chunk& chunk_;
  Mail mail_;  // what tokens the rows are, and which rows are wanted
  size_t tokens_at_, wanted_at_;
  Block activations_, logits_;
  float *x_, *normal_, *query_, *key_, *value_, *attended_, *mlp_;  // of all rows
  OwnedEvent done_;  // the latest step
};

class DenseWork final : public CudaWork {
 public:
  DenseWork(CudaDenseRun& run, int layer) : run_(run), layer_(layer) {}
  ~DenseWork() override { land(); }

  int next_stage() override {
    run_.device.require_working();
    return std::exchange(prepared_, true) ? 0 : 1;
  }

  void launch(std::vector<Request*>&) override {
    run_.enqueue(layer_);
    under_way_ = true;
  }

  void run(int) override {
    const Device::Scope scope(run_.device);
    run_.wait();
    under_way_ = false;
    if (layer_ == run_.layers) run_.fetch_logits();
  }

  void commit() noexcept override {}

 private:
  void land() noexcept {
    if (!under_way_) return;
    const Device::Scope scope(run_.device);
    try {
      run_.wait();
    } catch (...) {
      // The device is lost, and what was under way with it.
    }
  }

  CudaDenseRun& run_;
  const int layer_;
  bool prepared_ = false, under_way_ = false;
};

CudaDenseRun::CudaDenseRun(std::shared_ptr<const DenseWeights> weights, const Chunk& chunk)
    : device(weights->device),
      layers(weights->config.layers),
      weights_(std::move(weights)),
      config_(weights_->config),
      chunk_(chunk),
      mail_(device) {
  const Device::Scope scope(device);
  device.require_working();
  const std::vector<int32_t> wanted(chunk.wanted.begin(), chunk.wanted.end());
  tokens_at_ = mail_.place(chunk.tokens.size() * sizeof(int32_t));
  wanted_at_ = mail_.place(wanted.size() * sizeof(int32_t));
  mail_.open();
  std::memcpy(mail_.host<int32_t>(tokens_at_), chunk.tokens.data(), chunk.tokens.size() * sizeof(int32_t));
  if (!wanted.empty()) std::memcpy(mail_.host<int32_t>(wanted_at_), wanted.data(), wanted.size() * sizeof(int32_t));

  const std::pair<float**, int> parts[] = {{&x_, config_.width},
                                           {&normal_, config_.width},
                                           {&query_, config_.query_width()},
                                           {&key_, config_.key_width()},
                                           {&value_, config_.key_width()},
                                           {&attended_, config_.query_width()},
                                           {&mlp_, config_.mlp_width}};
  const auto bytes_of = [&](int width) {
    return (chunk.tokens.size() * size_t(width) * sizeof(float) + 255) / 256 * 256;
  };
  const auto take = [&](size_t bytes) {
    return device.memory.take(bytes, &Ledger::scratch_bytes, "the activations of one call");
  };
  size_t bytes = 0;
  for (const auto& [_, width] : parts) bytes += bytes_of(width);
  activations_ = take(bytes);
  char* next = activations_.data();
  for (const auto& [part, width] : parts) {
    *part = reinterpret_cast<float*>(next);
    next += bytes_of(width);
  }
  if (!wanted.empty()) logits_ = take(wanted.size() * size_t(config_.vocabulary) * sizeof(float));
  device.check(cudaEventCreateWithFlags(&done_.handle, cudaEventBlockingSync | cudaEventDisableTiming));
}

Tensors CudaDenseRun::tensors(int64_t first, int64_t count) const {
  Tensors tensors;
  tensors.tokens = count;
  tensors.query = query_ + first * config_.query_width();
  tensors.key = key_ + first * config_.key_width();
  tensors.value = value_ + first * config_.key_width();
  tensors.output = attended_ + first * config_.query_width();
  tensors.query_place = tensors.key_place = tensors.value_place = tensors.output_place = infini::Place::Device;
  return tensors;
}

std::unique_ptr<Work> CudaDenseRun::step(int layer) { return std::make_unique<DenseWork>(*this, layer); }

void CudaDenseRun::enqueue(int layer) {
  int rows = int(chunk_.tokens.size());
  float *x = x_, *normal = normal_;
  const float* attended = attended_;
  if (layer == 0) {
    mail_.send(0, mail_.bytes(), device.computing);
    gather(weights_->embedding, mail_.device<int>(tokens_at_), rows, x);
  }
  if (layer == layers) {  // only the rows whose logits are wanted go on, in what the layer before has no more need of
    rows = int(chunk_.wanted.size());
    const int* wanted = mail_.device<int>(wanted_at_);
    gather(attended, config_.query_width(), wanted, rows, query_);
    gather(x, config_.width, wanted, rows, normal);
    attended = query_;
    std::swap(x, normal);
  }
  if (layer > 0) {
    const DenseWeights::Layer& before = weights_->layers[layer - 1];
    const Act act = act_of(config_.activation);
    multiply(before.output, rows, attended, x, Act::None, Into::Add);
    normalize(before.mlp_norm, rows, x, normal);
    multiply(before.mlp_up, rows, normal, mlp_, config_.gated ? Act::None : act);
    if (config_.gated) multiply(before.mlp_gate, rows, normal, mlp_, act, Into::Times);
    multiply(before.mlp_down, rows, mlp_, x, Act::None, Into::Add);
  }
  if (layer == layers) {
    normalize(weights_->final_norm, rows, x, normal);
    multiply(weights_->head(), rows, normal, reinterpret_cast<float*>(logits_.data()));
  } else {
    const DenseWeights::Layer& next = weights_->layers[layer];
    normalize(next.attention_norm, rows, x, normal);
    multiply(next.query, rows, normal, query_);
    multiply(next.key, rows, normal, key_);
    multiply(next.value, rows, normal, value_);
  }
  device.check(cudaEventRecord(done_, device.computing));
}

void CudaDenseRun::fetch_logits() { device.download(chunk_.logits, logits_.data(), logits_.bytes()); }

void CudaDenseRun::gather(const Matrix& table, const int* indices, int rows, float* to) {
  device.check(launch_gather(table.element, table.block.data(), indices, to, table.inputs, rows, device.computing));
}

void CudaDenseRun::gather(const float* table, int width, const int* indices, int rows, float* to) {
  device.check(launch_gather(Element::Float32, table, indices, to, width, rows, device.computing));
}

void CudaDenseRun::normalize(const Matrix& norm, int rows, const float* x, float* y) {
  device.check(launch_normalize(norm.element, norm.block.data(), x, y, norm.inputs, rows, config_.norm_epsilon,
                                device.computing));
}

void CudaDenseRun::multiply(const Matrix& matrix, int rows, const float* x, float* y, Act act, Into into) {
  const Linear layer = {matrix.element, matrix.block.data(), matrix.inputs, matrix.outputs, rows, x, y, act, into};
  device.check(launch_linear(layer, device.computing));
}

}  // namespace

DenseWeights::DenseWeights(Device& device, const ModelConfig& config, WeightSource& source)
    : device(device), config(config), layers(size_t(config.layers)) {
  const int width = config.width, query = config.query_width(), key = config.key_width(), mlp = config.mlp_width;
  const size_t longest_row = size_t(std::max({width, query, mlp})) * sizeof(float);
  const Block staging =
      device.pinned.take(std::max(kPieceBytes, longest_row), &Ledger::staging_bytes, "the weights of a model");
  const auto get = [&](Matrix& to, Weight weight, int layer, int outputs, int inputs) {
    to = load(weight, layer, outputs, inputs, source, staging);
  };
  get(embedding, Weight::Embedding, 0, config.vocabulary, width);
  for (int i = 0; i < config.layers; ++i) {
    Layer& layer = layers[i];
    get(layer.attention_norm, Weight::AttentionNorm, i, 1, width);
    get(layer.query, Weight::Query, i, query, width);
    get(layer.key, Weight::Key, i, key, width);
    get(layer.value, Weight::Value, i, key, width);
    get(layer.output, Weight::Output, i, width, query);
    get(layer.mlp_norm, Weight::MlpNorm, i, 1, width);
    if (config.gated) get(layer.mlp_gate, Weight::MlpGate, i, mlp, width);
    get(layer.mlp_up, Weight::MlpUp, i, mlp, width);
    get(layer.mlp_down, Weight::MlpDown, i, width, mlp);
  }
  get(final_norm, Weight::FinalNorm, 0, 1, width);
  if (!config.tied) get(own_head, Weight::Head, 0, config.vocabulary, width);
}

Matrix DenseWeights::load(Weight weight, int layer, int outputs, int inputs, WeightSource& source,
                          const Block& staging) {
  Matrix matrix{element_of(source.dtype(weight, layer)), outputs, inputs, {}};
  const size_t row = row_bytes(matrix);
  matrix.block = device.memory.take(size_t(outputs) * row, &Ledger::weight_bytes, "the weights of a model");
  bytes += int64_t(matrix.block.bytes());
  const int64_t rows_at_once = int64_t(staging.bytes() / row);
  for (int64_t begin = 0; begin < outputs; begin += rows_at_once) {
    const int64_t end = std::min<int64_t>(outputs, begin + rows_at_once);
    source.read(weight, layer, begin, end, staging.data());
    const Device::Scope scope(device);  // not while reading: a process that ends waits for who is inside
    device.upload(matrix.block.data() + size_t(begin) * row, staging.data(), size_t(end - begin) * row);
  }
  return matrix;
}

std::unique_ptr<DenseRun> CudaDenseLayers::begin(const Chunk& chunk) {
  return std::make_unique<CudaDenseRun>(weights_, chunk);
}

}  // namespace infini::cuda

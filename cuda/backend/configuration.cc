#include "backend/configuration.h"

#include <algorithm>
#include <cmath>

#include "core/rotary.h"

namespace infini::cuda {
namespace {

constexpr double kFirstSpeed = 1e8;       // far too low for a GPU: the first spans teach better
constexpr double kTellingSeconds = 8e-3;  // a measurement of so long is believed at once

size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

// Cosine and sine of position * theta^(-2i/headDim), [position][i], in float64 until the last rounding.
std::vector<float2> rotary_angles(double theta, int head_dim, int positions) {
  const int half = head_dim / 2;
  std::vector<float2> angles(size_t(positions) * half);
  for_each_turn(theta, head_dim, positions, [&](int64_t position, int i, double cosine, double sine) {
    angles[size_t(position) * half + i] = {float(cosine), float(sine)};
  });
  return angles;
}

}  // namespace

Element element_of(DType dtype) {
  switch (dtype) {
    case DType::Float32: return Element::Float32;
    case DType::BFloat16: return Element::BFloat16;
    default: return Element::Float16;
  }
}

StateBytes::StateBytes(const StreamConfig& config)
    : normalizer(aligned(size_t(config.normalizer_elements()) * sizeof(double))),
      matrix(size_t(config.matrix_elements()) * sizeof(float)),
      keys(aligned(size_t(config.segment_length) * config.key_width() * config.element_bytes())),
      values(size_t(config.segment_length) * config.value_width() * config.element_bytes()) {}

int64_t StateBytes::charged() const {
  const auto whole = [](size_t bytes) { return int64_t((bytes + 63) / 64 * 64); };
  return whole(memory()) + whole(cache());
}

Configuration::Configuration(Device& device, const StreamConfig& config, std::shared_ptr<const Block> rotary)
    : device(device),
      config(config),
      bytes(config),
      rotary_(std::move(rotary)),
      speed_(kFirstSpeed) {
  std::vector<float2> gate;
  for (double beta : config.gate) {
    gate.push_back({float(1.0 / (1.0 + std::exp(-beta))), float(1.0 / (1.0 + std::exp(beta)))});
  }
  const size_t bytes = gate.size() * sizeof(float2);
  gate_ = device.memory.take(bytes, &Ledger::table_bytes, "the gates of a stream");
  device.upload(gate_.data(), gate.data(), bytes);

  shape.element = element_of(config.dtype);
  shape.delta = config.rule == Rule::Delta;
  shape.local_when_empty = config.empty_read == EmptyRead::Local;
  shape.heads = config.heads;
  shape.kv_heads = config.kv_heads;
  shape.head_dim = config.head_dim;
  shape.value_dim = config.value_dim;
  shape.segment_length = config.segment_length;
  shape.scale = float(config.scale);
  shape.gate = reinterpret_cast<const float2*>(gate_.data());
  shape.rotary = rotary_ ? reinterpret_cast<const float2*>(rotary_->data()) : nullptr;
}

// What is short takes longer than its work: launching takes a while, and few blocks do not fill the GPU. So a higher
// speed is believed at once, a lower one the more the longer it took.
void Configuration::learn_speed(double cost, double seconds) {
  const bool first = !launched_.exchange(true);  // CUDA loads code when it is launched first
  if (first || seconds <= 0) return;
  const double measured = cost / seconds, known = speed_;
  speed_ = measured > known ? measured : known + (measured - known) * std::min(1.0, seconds / kTellingSeconds);
}

size_t Configuration::workspace_bytes(int64_t pieces, int64_t borders) const {
  const Workspace end = workspace(Block(), pieces, borders);
  return reinterpret_cast<size_t>(end.snapshots) +
         size_t(pieces) * shape.kv_heads * snapshot_terms(shape.element) * padded(shape.head_dim) *
             padded(shape.value_dim) * snapshot_bytes(shape.element);
}

Workspace Configuration::workspace(const Block& block, int64_t pieces, int64_t borders) const {
  size_t at = reinterpret_cast<size_t>(block.data());
  auto part = [&](size_t bytes) {
    const size_t begin = at;
    at += aligned(bytes);
    return begin;
  };
  const size_t heads = size_t(shape.kv_heads), rows = size_t(padded(shape.head_dim));
  const size_t columns = size_t(padded(shape.value_dim)) + (shape.delta ? rows : 0);
  // With few segments under way their chunks are worked on side by side; else each one's sums stay in the cache of the
  // GPU until they are whole.
  const int side_by_side = 2 * device.multiprocessors;
  Workspace parts;
  parts.whole_sums = borders * shape.kv_heads >= side_by_side;
  const size_t sums = parts.whole_sums ? 1 : size_t(chunks(shape.segment_length));
  parts.key_sums = reinterpret_cast<double*>(part(size_t(borders) * heads * shape.head_dim * sizeof(double)));
  parts.normalizers = reinterpret_cast<float*>(part(size_t(pieces) * heads * rows * sizeof(float)));
  parts.sums = reinterpret_cast<float*>(
      part(size_t(borders) * heads * sums * rows * columns * sizeof(float)));
  parts.snapshots = reinterpret_cast<void*>(at);
  return parts;
}

std::shared_ptr<const Block> Configurations::rotary_table(double theta, int head_dim, int positions) {
  std::erase_if(rotary_tables_, [](const auto& entry) { return entry.second.expired(); });
  auto& slot = rotary_tables_[{theta, head_dim, positions}];
  auto table = slot.lock();
  if (!table) {
    const auto angles = rotary_angles(theta, head_dim, positions);
    const size_t bytes = angles.size() * sizeof(float2);
    auto block = std::make_shared<Block>(device_.memory.take(bytes, &Ledger::table_bytes, "a rotary table"));
    device_.upload(block->data(), angles.data(), bytes);
    slot = table = std::move(block);
  }
  return table;
}

std::shared_ptr<Configuration> Configurations::find(const StreamConfig& config) {
  const Key key{config.heads,          config.kv_heads, config.head_dim, config.value_dim, config.segment_length,
                config.rule,           config.gate,     config.scale,    config.rope_theta, config.empty_read,
                config.dtype};
  std::lock_guard lock(mutex_);
  std::erase_if(configurations_, [](const auto& entry) { return entry.second.expired(); });
  auto& slot = configurations_[key];
  auto configuration = slot.lock();
  if (!configuration) {
    std::shared_ptr<const Block> rotary;
    if (config.rope_theta) rotary = rotary_table(*config.rope_theta, config.head_dim, config.segment_length);
    slot = configuration = std::make_shared<Configuration>(device_, config, std::move(rotary));
  }
  return configuration;
}

}  // namespace infini::cuda

// What all streams of one configuration on one device share: the shape that the kernels see and its tables.
#pragma once

#include <map>
#include <memory>
#include <tuple>

#include "backend/device.h"
#include "core/config.h"
#include "launch.h"

namespace infini::cuda {

Element element_of(DType dtype);  // as the kernels call it

// A stream's memory: z, then M. Its open segment: keys, then values. Each begins at a multiple of 256 bytes.
struct StateBytes {
  explicit StateBytes(const StreamConfig& config);
  size_t memory() const { return normalizer + matrix; }
  size_t cache() const { return keys + values; }
  int64_t charged() const;  // to the ledger

  size_t normalizer, matrix, keys, values;
};

class Configuration {
 public:
  Configuration(Device& device, const StreamConfig& config, std::shared_ptr<const Block> rotary);

  double* normalizer(const Block& memory) const { return reinterpret_cast<double*>(memory.data()); }
  float* matrix(const Block& memory) const { return reinterpret_cast<float*>(memory.data() + bytes.normalizer); }
  void* keys(const Block& cache) const { return cache.data(); }
  void* values(const Block& cache) const { return cache.data() + bytes.keys; }

  // The kernels' scratch for so many pieces and borders, and its parts.
  size_t workspace_bytes(int64_t pieces, int64_t borders) const;
  Workspace workspace(const Block& block, int64_t pieces, int64_t borders) const;

  // How much of the kernels' work takes the GPU so long, as far as is known, in whatever unit is learned in.
  double cost_of(double seconds) const { return speed_ * seconds; }
  void learn_speed(double cost, double seconds);

  Device& device;
  const StreamConfig config;
  const StateBytes bytes;
  Shape shape{};

 private:
  Block gate_;
  std::shared_ptr<const Block> rotary_;
  std::atomic<double> speed_;
  std::atomic<bool> launched_ = false;
};

class Configurations {
 public:
  explicit Configurations(Device& device) : device_(device) {}
  // The one that streams with this configuration share, for as long as there are any.
  std::shared_ptr<Configuration> find(const StreamConfig& config);

 private:
  using Key = std::tuple<int, int, int, int, int, Rule, std::vector<double>, double, std::optional<double>, EmptyRead,
                         DType>;
  using RotaryKey = std::tuple<double, int, int>;
  std::shared_ptr<const Block> rotary_table(double theta, int head_dim, int positions);

  Device& device_;
  std::mutex mutex_;
  std::map<Key, std::weak_ptr<Configuration>> configurations_;
  std::map<RotaryKey, std::weak_ptr<const Block>> rotary_tables_;
};

}  // namespace infini::cuda

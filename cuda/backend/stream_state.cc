#include "backend/stream_state.h"

#include <cstring>
#include <vector>

#include "core/error.h"

namespace infini::cuda {
namespace {

// The kernels ask that sums of 256 features times z stay within float32 (kernels/normalizers.cu).
constexpr double kLargestNormalizer = 0x1p117;

// One tensor of the open segment: on the device [kv_heads][segment_length][row bytes], in calls [tokens][kv_heads][row].
struct Rows {
  char* cached;
  int64_t heads, length;
  size_t row;

  void download(Device& device, int64_t begin, int64_t tokens, void* to) const {
    std::vector<char> head(size_t(tokens) * row);
    for (int64_t h = 0; h < heads; ++h) {
      device.download(head.data(), cached + size_t(h * length + begin) * row, head.size());
      for (int64_t t = 0; t < tokens; ++t) {
        std::memcpy(static_cast<char*>(to) + size_t(t * heads + h) * row, head.data() + size_t(t) * row, row);
      }
    }
  }
  void upload(Device& device, int64_t tokens, const void* from) const {
    std::vector<char> head(size_t(tokens) * row);
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t t = 0; t < tokens; ++t) {
        std::memcpy(head.data() + size_t(t) * row, static_cast<const char*>(from) + size_t(t * heads + h) * row, row);
      }
      device.upload(cached + size_t(h * length) * row, head.data(), head.size());
    }
  }
};

Rows key_rows(const Configuration& configuration, const Block& cache) {
  const StreamConfig& config = configuration.config;
  return {static_cast<char*>(configuration.keys(cache)), config.kv_heads, config.segment_length,
          config.head_dim * config.element_bytes()};
}

Rows value_rows(const Configuration& configuration, const Block& cache) {
  const StreamConfig& config = configuration.config;
  return {static_cast<char*>(configuration.values(cache)), config.kv_heads, config.segment_length,
          config.value_dim * config.element_bytes()};
}

}  // namespace

CudaStreamState::CudaStreamState(std::shared_ptr<Configuration> given)
    : configuration(std::move(given)),
      device(configuration->device),
      cache(new_cache(&Ledger::stream_bytes)),
      memory(new_memory(&Ledger::stream_bytes)) {
  reset();
}

Block CudaStreamState::new_memory(Account account) const {
  return device.memory.take(configuration->bytes.memory(), account, "a stream");
}

Block CudaStreamState::new_cache(Account account) const {
  return device.memory.take(configuration->bytes.cache(), account, "a stream");
}

int64_t CudaStreamState::byte_length() const { return configuration->bytes.charged(); }

void CudaStreamState::read_memory(float* matrix, double* normalizer) const {
  const Device::Scope scope(device);
  const StreamConfig& config = configuration->config;
  device.download(normalizer, configuration->normalizer(memory), size_t(config.normalizer_elements()) * sizeof(double));
  device.download(matrix, configuration->matrix(memory), size_t(config.matrix_elements()) * sizeof(float));
}

void CudaStreamState::read_segment(int64_t begin, int64_t tokens, void* keys, void* values) const {
  const Device::Scope scope(device);
  key_rows(*configuration, cache).download(device, begin, tokens, keys);
  value_rows(*configuration, cache).download(device, begin, tokens, values);
}

void CudaStreamState::write(const float* matrix, const double* normalizer, int64_t tokens, const void* keys,
                            const void* values) {
  const StreamConfig& config = configuration->config;
  for (int64_t i = 0; i < config.normalizer_elements(); ++i) {
    if (normalizer[i] > kLargestNormalizer) {
      throw Error(ErrorCode::Snapshot, "Expected no number above 2^117 in normalizer, which is what this device can use");
    }
  }
  const Device::Scope scope(device);
  device.upload(configuration->normalizer(memory), normalizer, size_t(config.normalizer_elements()) * sizeof(double));
  device.upload(configuration->matrix(memory), matrix, size_t(config.matrix_elements()) * sizeof(float));
  if (tokens == 0) return;
  key_rows(*configuration, cache).upload(device, tokens, keys);
  value_rows(*configuration, cache).upload(device, tokens, values);
}

void CudaStreamState::reset() {
  const Device::Scope scope(device);
  device.clear(memory.data(), memory.bytes());
}

std::unique_ptr<StreamState> CudaStreamState::fork() const {
  auto copy = std::make_unique<CudaStreamState>(configuration);
  const Device::Scope scope(device);
  device.copy(copy->memory.data(), memory.data(), memory.bytes());
  device.copy(copy->cache.data(), cache.data(), cache.bytes());
  return copy;
}

}  // namespace infini::cuda

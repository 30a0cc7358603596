#include "backend/stream_state.h"

namespace infini::cuda {
namespace {

int64_t charged(size_t bytes) { return int64_t((bytes + 63) / 64 * 64); }

}  // namespace

CudaStreamState::CudaStreamState(std::shared_ptr<Configuration> given)
    : configuration(std::move(given)),
      device(configuration->device),
      cache(new_cache(&Ledger::stream_bytes)),
      memory(new_memory(&Ledger::stream_bytes)) {
  reset();
}

Block CudaStreamState::new_memory(Account account) const {
  return device.memory.take(configuration->memory_bytes(), account, "a stream");
}

Block CudaStreamState::new_cache(Account account) const {
  return device.memory.take(configuration->cache_bytes(), account, "a stream");
}

int64_t CudaStreamState::byte_length() const {
  return charged(configuration->memory_bytes()) + charged(configuration->cache_bytes());
}

void CudaStreamState::read_memory(float* matrix, double* normalizer) const {
  const Device::Scope scope(device);
  const StreamConfig& config = configuration->config;
  device.download(normalizer, configuration->normalizer(memory), size_t(config.normalizer_elements()) * sizeof(double));
  device.download(matrix, configuration->matrix(memory), size_t(config.matrix_elements()) * sizeof(float));
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

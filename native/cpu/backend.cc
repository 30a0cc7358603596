#include "cpu/backend.h"

#include <fstream>

#include "core/buffer.h"
#include "cpu/batch_state.h"
#include "cpu/dense_layers.h"
#include "cpu/kernels.h"
#include "cpu/stream_state.h"

namespace infini::cpu {
namespace {

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "CPU";
}

}  // namespace

CpuBackend::CpuBackend(Ledger& ledger, int threads) : Backend(ledger), threads_(threads) { select_kernels(); }

DeviceInfo CpuBackend::info() const {
  static const std::string& name = *new std::string(processor_name());
  DeviceInfo info;
  info.id = info.backend = "cpu";
  info.name = name;
  info.threads = threads_;
  info.simd = select_kernels().name;
  return info;
}

std::unique_ptr<StreamState> CpuBackend::create(const StreamConfig& config) {
  return std::make_unique<CpuStreamState>(config, ledger, threads_);
}

int64_t CpuBackend::stream_bytes(const StreamConfig& config) const {
  const int64_t segment = config.state_bytes() - config.memory_bytes();
  return int64_t(Buffer::charged(size_t(config.memory_bytes())) + Buffer::charged(size_t(segment)));
}

std::unique_ptr<BatchState> CpuBackend::create_batch(const StreamConfig&, std::vector<StreamState*> streams) {
  return std::make_unique<CpuBatchState>(streams);
}

std::unique_ptr<DenseLayers> CpuBackend::create_dense(const ModelConfig& config, WeightSource& weights) {
  return std::make_unique<CpuDenseLayers>(config, weights, ledger, threads_);
}

}  // namespace infini::cpu

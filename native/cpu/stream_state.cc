#include "cpu/stream_state.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/memory_budget.h"

namespace infini::cpu {

CpuStreamState::CpuStreamState(const StreamConfig& config, Ledger& ledger, int threads)
    : config(config), ledger(ledger), threads(threads) {
  require_memory(uint64_t(config.state_bytes()), "a stream", ledger);
  memory = MemoryBuffer(config, ledger, &Ledger::stream_bytes);
  cache = SegmentCache(config, ledger, &Ledger::stream_bytes);
  if (config.rope_theta) {
    rotary = shared_rotary_table(*config.rope_theta, config.head_dim, config.segment_length, ledger);
  }
  for (double beta : config.gate) {
    gate.push_back(1.0 / (1.0 + std::exp(-beta)));
    gate_rest.push_back(1.0 / (1.0 + std::exp(beta)));
    whole.push_back(1.0);
  }
  std::memset(memory.buffer.as<char>(), 0, memory.buffer.bytes());
  ledger.untouched_bytes += config.segment_length * config.token_bytes();
}

CpuStreamState::~CpuStreamState() {
  ledger.untouched_bytes -= (config.segment_length - touched_) * config.token_bytes();
}

void CpuStreamState::set_touched(int64_t positions) noexcept {
  ledger.untouched_bytes -= (positions - touched_) * config.token_bytes();
  touched_ = positions;
}

Dims CpuStreamState::dims() const {
  const Element element = config.dtype == DType::Float32    ? Element::F32
                          : config.dtype == DType::BFloat16 ? Element::BF16
                                                            : Element::F16;
  return {element, config.head_dim, config.value_dim};
}

void CpuStreamState::read_memory(float* matrix, double* normalizer) const {
  std::memcpy(matrix, memory.matrix(config, 0), size_t(config.matrix_elements()) * sizeof(float));
  std::memcpy(normalizer, memory.normalizer(config, 0), size_t(config.normalizer_elements()) * sizeof(double));
}

void CpuStreamState::read_segment(int64_t begin, int64_t tokens, void* keys, void* values) const {
  for (int head = 0; head < config.kv_heads; ++head) cache.read(config, head, begin, tokens, keys, values);
}

void CpuStreamState::write(const float* matrix, const double* normalizer, int64_t tokens, const void* keys,
                           const void* values) {
  std::memcpy(memory.matrix(config, 0), matrix, size_t(config.matrix_elements()) * sizeof(float));
  std::memcpy(memory.normalizer(config, 0), normalizer, size_t(config.normalizer_elements()) * sizeof(double));
  Tensors tensors;
  tensors.tokens = tokens;
  tensors.key = keys;
  tensors.value = values;
  for (int head = 0; head < config.kv_heads; ++head) cache.append(config, head, tensors, {0, 0, tokens, false});
  set_touched(std::max(touched_, tokens));
}

void CpuStreamState::reset() { std::memset(memory.buffer.as<char>(), 0, memory.buffer.bytes()); }

std::unique_ptr<StreamState> CpuStreamState::fork() const {
  auto copy = std::make_unique<CpuStreamState>(config, ledger, threads);
  std::memcpy(copy->memory.buffer.as<char>(), memory.buffer.as<char>(), memory.buffer.bytes());
  // Panels and value rows of all heads interleave, so copy up to the last position that was ever written.
  for (int head = 0; head < config.kv_heads; ++head) {
    const Segment from = cache.head(config, head), to = copy->cache.head(config, head);
    const int64_t positions = std::min<int64_t>(config.segment_length, (touched_ + kPanel - 1) / kPanel * kPanel);
    const size_t element = config.element_bytes();
    std::memcpy(const_cast<void*>(to.keys), from.keys, size_t(positions) * config.head_dim * element);
    std::memcpy(const_cast<void*>(to.values), from.values, size_t(touched_) * config.value_dim * element);
  }
  copy->set_touched(touched_);
  return copy;
}

void* thread_workspace(const StreamConfig& config, Ledger& ledger) {
  thread_local Buffer workspace;
  const size_t bytes = workspace_bytes(config.head_dim, config.value_dim);
  if (workspace.bytes() < bytes) {
    workspace = Buffer();
    workspace = Buffer(bytes, ledger, &Ledger::scratch_bytes);
  }
  return workspace.as<void>();
}

}  // namespace infini::cpu

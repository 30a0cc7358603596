// One stream on the CPU: z and M of every key-value head, and the open segment.
#pragma once

#include <vector>

#include "core/backend.h"
#include "core/buffer.h"
#include "cpu/rotary.h"
#include "cpu/segment_cache.h"

namespace infini::cpu {

// z (float64) and then M (float32) of all key-value heads.
struct MemoryBuffer {
  MemoryBuffer() = default;
  MemoryBuffer(const StreamConfig& config, Ledger& ledger, std::atomic<int64_t> Ledger::* account)
      : buffer(size_t(config.memory_bytes()), ledger, account) {}

  double* normalizer(const StreamConfig& config, int kv_head) const {
    return buffer.as<double>() + int64_t(kv_head) * config.head_dim;
  }
  float* matrix(const StreamConfig& config, int kv_head) const {
    return reinterpret_cast<float*>(buffer.as<double>() + config.normalizer_elements()) +
           int64_t(kv_head) * config.head_dim * config.value_dim;
  }
  Memory head(const StreamConfig& config, int kv_head) const {
    return {matrix(config, kv_head), normalizer(config, kv_head)};
  }

  Buffer buffer;
};

class CpuStreamState final : public StreamState {
 public:
  CpuStreamState(const StreamConfig& config, Ledger& ledger, int threads);
  ~CpuStreamState() override;

  std::unique_ptr<Work> attend(const Tensors& tensors, const Pieces& pieces, bool absorbed) override;
  std::unique_ptr<Work> retrieve(const Tensors& tensors, bool absorbed) override;
  void read_memory(float* matrix, double* normalizer) const override;
  void read_segment(int64_t begin, int64_t tokens, void* keys, void* values) const override;
  void write(const float* matrix, const double* normalizer, int64_t tokens, const void* keys, const void* values) override;
  void reset() override;
  std::unique_ptr<StreamState> fork() const override;
  int64_t byte_length() const override { return int64_t(memory.buffer.bytes() + cache.buffer.bytes()); }

  Dims dims() const;
  // The cache's pages up to this position have been written.
  void set_touched(int64_t positions) noexcept;
  int64_t touched() const { return touched_; }

  const StreamConfig config;
  Ledger& ledger;
  const int threads;  // how many may work at once: how finely a call is cut, never what it computes
  MemoryBuffer memory;
  SegmentCache cache;
  std::shared_ptr<const RotaryTable> rotary;  // null without rope
  // Per query head: sigmoid(beta), 1 - sigmoid(beta), and the ones that take its place under emptyRead 'local'.
  std::vector<double> gate, gate_rest, whole;

 private:
  int64_t touched_ = 0;
};

// This thread's scratch for one kernel call.
void* thread_workspace(const StreamConfig& config, Ledger& ledger);

}  // namespace infini::cpu

// What one engine holds and has done. Counters only; read by device.stats().
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace infini {

struct Ledger {
  // Held now.
  std::atomic<int64_t> streams{0}, stream_bytes{0}, scratch_bytes{0}, staging_bytes{0}, table_bytes{0};
  std::atomic<int64_t> tensor_bytes{0};  // device tensors and host buffers
  std::atomic<int64_t> weight_bytes{0};  // of models
  std::atomic<int64_t> idle_bytes{0};    // scratch and staging kept for the next call
  std::atomic<int64_t> pending_calls{0};
  // Promised to streams but not written yet: free memory that is already spoken for.
  std::atomic<int64_t> untouched_bytes{0};
  // Ever done.
  std::atomic<int64_t> tokens{0}, segments{0}, units{0}, allocated_bytes{0};
  std::atomic<int64_t> kernel_nanoseconds{0};  // in units, summed over threads; in rounds; and in *Sync calls
};

// Enters the time of its own life.
class KernelTime {
 public:
  explicit KernelTime(Ledger& ledger) : ledger_(ledger) {}
  ~KernelTime() {
    ledger_.kernel_nanoseconds += std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  Ledger& ledger_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

using Account = std::atomic<int64_t> Ledger::*;

// Held for long, and of sizes that the next call will not ask for: a stream's state, a tensor, a model.
inline bool is_lasting(Account account) {
  return account == &Ledger::stream_bytes || account == &Ledger::tensor_bytes || account == &Ledger::weight_bytes;
}

}  // namespace infini

// What a device must be able to do. The CPU implements it in native/cpu; everything above is written once.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "core/config.h"
#include "core/ledger.h"
#include "core/segments.h"

namespace infini {

struct DeviceInfo {
  std::string id, backend, name;
  int threads = 0;   // cpu
  std::string simd;  // cpu
};

// The tensors of one call, row-major, in the stream's dtype. They outlive the call's work.
struct Tensors {
  int64_t tokens = 0;
  const void* query = nullptr;
  const void* key = nullptr;    // null for retrieval
  const void* value = nullptr;  // null for retrieval
  void* output = nullptr;
};

// One call on one stream: stages in order, each of units that may run at once on any threads. The stream's state
// is only read until commit().
class Work {
 public:
  virtual ~Work() = default;
  // Prepares the next stage and returns its number of units; 0 when all is done. Throws Error when the stage
  // before it found that the call must fail. Called by one thread at a time, when no unit is running.
  virtual int next_stage() = 0;
  // One unit, at most some 50 ms. Throws std::bad_alloc at most.
  virtual void run(int unit) = 0;
  // The new state becomes the stream's. Cannot fail.
  virtual void commit() noexcept = 0;
  // Set by the engine: a running unit may return early, its results will be thrown away.
  std::atomic<bool> cancelled{false};
};

// M, z and the open segment of one stream, where the device keeps them.
class StreamState {
 public:
  virtual ~StreamState() = default;
  // absorbed: whether any segment is in the memory yet.
  virtual std::unique_ptr<Work> attend(const Tensors& tensors, const Pieces& pieces, bool absorbed) = 0;
  virtual std::unique_ptr<Work> retrieve(const Tensors& tensors, bool absorbed) = 0;
  virtual void read_memory(float* matrix, double* normalizer) const = 0;
  virtual void reset() = 0;
  virtual std::unique_ptr<StreamState> fork() const = 0;
  virtual int64_t byte_length() const = 0;  // fixed for life
};

class Backend {
 public:
  explicit Backend(Ledger& ledger) : ledger(ledger) {}
  virtual ~Backend() = default;
  virtual DeviceInfo info() const = 0;
  virtual std::unique_ptr<StreamState> create(const StreamConfig& config) = 0;  // throws Error(OutOfMemory)
  Ledger& ledger;
};

}  // namespace infini

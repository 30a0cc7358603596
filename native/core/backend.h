// What a device must be able to do. The CPU implements it in native/cpu; everything above is written once.
//
// Threads: everything here may be called from several threads at once, but for one stream, one batch or one Work
// by one thread at a time. JavaScript threads call create, create_batch, allocate_*, write, StreamState's methods
// and whole calls (the *Sync methods); the engine's threads run all other Work, and read.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/ledger.h"
#include "core/segments.h"
#include "core/tensor_memory.h"

namespace infini {

class DenseLayers;
struct ModelConfig;
class WeightSource;

struct DeviceInfo {
  std::string id, backend, name;
  int threads = 0;   // cpu
  std::string simd;  // cpu
  std::string compute_capability;             // cuda
  uint64_t total_bytes = 0, free_bytes = 0;   // cuda
  std::string driver;                         // cuda
};

// The tensors of one call, row-major, in the stream's dtype. They outlive the call's work.
struct Tensors {
  int64_t tokens = 0;
  const void* query = nullptr;
  const void* key = nullptr;    // null for retrieval
  const void* value = nullptr;  // null for retrieval
  void* output = nullptr;
  Place query_place = Place::Host, key_place = Place::Host, value_place = Place::Host, output_place = Place::Host;
  // Whether JavaScript sees `output`. Then only commit() writes it: a call that fails leaves it as it was, and it
  // may overlap the inputs. Otherwise it is the call's own staging, which may be written at any time.
  bool output_visible = false;
};

// One call on one stream or batch: stages in order, each of units that may run at once on any threads. The state of
// a stream is only read until commit().
class Work {
 public:
  virtual ~Work() = default;
  // Prepares the next stage and returns its number of units; 0 when all is done. Throws Error when the stage
  // before it found that the call must fail. Called by one thread at a time, when no unit is running.
  virtual int next_stage() = 0;
  // One unit, at most some 50 ms. On a backend that gathers: waits for the stage that launch() started; each
  // stage has one unit for each work that gather() names. Throws Error or std::bad_alloc.
  virtual void run(int unit) = 0;
  // `output` is completed, then the new state becomes the stream's. Throws Error, and changes no stream, only when the
  // device is lost.
  virtual void commit() = 0;
  // On a backend that gathers: what of this stage the backend is to launch. A work made of others names those.
  virtual void gather(std::vector<Work*>& works) { works.push_back(this); }
  // Set by the engine: a running unit may return early, its results will be thrown away.
  std::atomic<bool> cancelled{false};
};

// Where a stream stands: the tokens in its open segment, and whether any segment is in the memory yet.
struct Position {
  int64_t open;
  bool absorbed;
};

// M, z and the open segment of one stream, where the device keeps them.
class StreamState {
 public:
  virtual ~StreamState() = default;
  virtual std::unique_ptr<Work> attend(const Tensors& tensors, const Pieces& pieces, bool absorbed) = 0;
  virtual std::unique_ptr<Work> retrieve(const Tensors& tensors, bool absorbed) = 0;
  virtual void read_memory(float* matrix, double* normalizer) const = 0;
  // Some tokens of the open segment, row-major as attend took them.
  virtual void read_segment(int64_t begin, int64_t tokens, void* keys, void* values) const = 0;
  // Becomes what was read. On an empty stream.
  virtual void write(const float* matrix, const double* normalizer, int64_t tokens, const void* keys,
                     const void* values) = 0;
  virtual void reset() = 0;
  virtual std::unique_ptr<StreamState> fork() const = 0;
  virtual int64_t byte_length() const = 0;  // fixed for life
};

// Streams of one configuration that step together, one token each. They outlive it.
class BatchState {
 public:
  virtual ~BatchState() = default;
  // `packed` has as many tokens as the batch has streams, token i for stream i, which stands at positions[i].
  // All or nothing: an error names its stream (Error::of_stream) and commit() commits every stream.
  virtual std::unique_ptr<Work> step(const Tensors& packed, const std::vector<Position>& positions) = 0;
};

class Backend {
 public:
  explicit Backend(Ledger& ledger) : ledger(ledger) {}
  virtual ~Backend() = default;
  virtual DeviceInfo info() const = 0;
  virtual std::unique_ptr<StreamState> create(const StreamConfig& config) = 0;  // throws Error(OutOfMemory)
  virtual std::unique_ptr<BatchState> create_batch(const StreamConfig& config, std::vector<StreamState*> streams) = 0;

  // What create() takes for such a stream, StreamState::byte_length(), and what there is for all that come. Throws Error.
  virtual int64_t stream_bytes(const StreamConfig& config) const = 0;
  virtual uint64_t free_bytes();

  // A model's weights, copied to where they are multiplied (core/model.h). Throws Error, std::bad_alloc.
  virtual std::unique_ptr<DenseLayers> create_dense(const ModelConfig& config, WeightSource& weights) = 0;

  // A device tensor's memory, all zero, entered in ledger.tensor_bytes. Throws Error(OutOfMemory).
  virtual std::shared_ptr<TensorMemory> allocate_device(size_t bytes);
  // Memory on the host that the device copies from and to fastest, its contents undefined, entered in `account`:
  // the staging of calls (staging_bytes) or a host buffer (tensor_bytes). Throws Error(OutOfMemory), std::bad_alloc.
  virtual std::shared_ptr<TensorMemory> allocate_host(size_t bytes, Account account);
  // Both return when the copy is complete. No work that could touch what they write is under way. Throw Error.
  virtual void write(TensorMemory& to, const void* from, size_t bytes);
  virtual void read(const TensorMemory& from, void* to, size_t bytes);

  // A device that runs the stages of many calls together. The engine then has one thread, which works in rounds:
  // next_stage() of every call, one launch() of all the stages, run(0) of each. Calls join and leave between rounds.
  // A *Sync call does the same for its one stage, on its own thread, beside the engine's.
  virtual bool gathers() const { return false; }
  // Starts the stages that these calls have just prepared; when it throws Error, all of them fail and none is run.
  virtual void launch(Work* const* /*works*/, int /*count*/) {}

  Ledger& ledger;
};

}  // namespace infini

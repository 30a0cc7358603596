// A stream, whatever the device: its configuration, its place in the token count, its life.
#pragma once

#include <deque>
#include <memory>

#include "core/backend.h"
#include "core/error.h"

namespace infini {

struct Call;

// Read and Snapshot copy what is there: no kernel works for them.
enum class CallKind : uint8_t { Attend, Retrieve, Step, Forward, Read, Snapshot };
inline bool only_copies(CallKind kind) { return kind == CallKind::Read || kind == CallKind::Snapshot; }

class Stream {
 public:
  Stream(Backend& backend, std::unique_ptr<StreamState> state, const StreamConfig& config);
  ~Stream();

  // Attend or Retrieve: cuts the call at segment borders and hands it to the device.
  std::unique_ptr<Work> begin(CallKind kind, const Tensors& tensors);
  void commit(CallKind kind, const Tensors& tensors, Work& work);

  // On the calling thread, which may have the help of others, from start to end. Throws Error.
  void run_now(CallKind kind, const Tensors& tensors, int threads);

  std::shared_ptr<Stream> fork() const;
  void reset();
  void read_memory(float* matrix, double* normalizer) const { state_->read_memory(matrix, normalizer); }
  // The image (core/image.h) of the committed tokens, in parts of some megabytes.
  int64_t image_parts() const;
  void read_image_part(int64_t part, void* data) const;
  void write_image(int64_t tokens, const void* data, size_t bytes);  // an empty stream becomes it. Throws Error(Snapshot).
  int64_t byte_length() const { return state_->byte_length(); }
  int64_t tokens() const { return tokens_; }
  Position position() const { return {tokens_ % config.segment_length, tokens_ >= config.segment_length}; }

  const StreamConfig config;

 private:
  friend class Batch;
  friend class Engine;
  StreamState& state() { return *state_; }
  void count(int64_t tokens) noexcept;  // these are committed

  Backend& backend_;
  std::unique_ptr<StreamState> state_;
  int64_t tokens_ = 0;                       // committed
  std::deque<std::shared_ptr<Call>> calls_;  // in call order; the front one is at work; guarded by the engine's lock
};

// All stages of a work, on the calling thread and at most threads - 1 others. Throws Error.
void run_to_end(Backend& backend, Work& work, int threads);

}  // namespace infini

// What attend and retrieve have in common on the GPU: spans of tokens, one after the other.
//
// Two spans are under way at a time, so that copying the one overlaps computing the other: when a third is prepared,
// the first is done. What spans hold a call is cut into does not change what it computes.
#pragma once

#include <array>
#include <optional>

#include "backend/input_check.h"
#include "backend/round.h"
#include "core/backend.h"

namespace infini::cuda {

// What the backend launches.
class CudaWork : public Work {
 public:
  // Within a scope and under the queue's lock: enqueues what this work launches itself, and adds what may be launched
  // together with others'.
  virtual void launch(std::vector<Request*>& requests) = 0;
};

class CallWork : public CudaWork {
 public:
  // `light`: little to compute; then the call is one span if its tensors are small, too.
  CallWork(Configuration& configuration, const Tensors& tensors, bool light);

  int next_stage() final;
  void launch(std::vector<Request*>& requests) final;
  void run(int) final;

 protected:
  // Sets end_, and the span's kind and job but for the tensors; then calls place().
  virtual void plan(Request& request) = 0;
  // Adds the tensors of a job that begins at token `first` and computes the tokens from begin_ to end_. Its keys and
  // values are those from `first` on; if begin_ lies behind, the span before has brought some. `last`: their end in
  // the span that will bring the last.
  void place(Request& request, int64_t first, int64_t last);
  void reserve_workspace(int64_t pieces, int64_t borders);
  void publish();  // the output, where the kernels have not written it themselves
  // Nothing is under way any more. For destructors: before anything goes that the kernels use.
  void land() noexcept;

  // What one span may hold.
  int64_t most_tokens() const { return most_tokens_; }
  double most_cost() const;

  Configuration& configuration_;
  Device& device_;
  const StreamConfig& config_;
  const Tensors tensors_;
  int64_t begin_ = 0, end_ = 0;  // the span's tokens

 private:
  struct Flight {
    std::shared_ptr<Round> round;
    int place = 0;
  };
  struct Input {
    const void* data;
    infini::Place place;
    int64_t row_bytes;
    // Rows on the device: for the span under way, and for the span being prepared.
    struct Rows {
      Block block;
      int64_t end = 0;  // token
    };
    Rows rows[2];
    int turn = 0;
  };

  const void* bring(Request& request, int which, int64_t first, int64_t last);
  void place_output(Request& request, int64_t first);
  void ensure(Block& block, int64_t bytes);
  void settle();
  // The kernels write the output where it belongs: on the device, and nobody sees it before the end.
  bool writes_in_place() const {
    return !tensors_.output_visible && tensors_.output_place == infini::Place::Device;
  }

  std::array<Input, 3> inputs_;  // query, key, value
  const int64_t output_row_;     // bytes
  const bool small_;  // everything travels with the plan
  int64_t most_tokens_;
  std::array<Block, 2> outputs_;
  int64_t spans_ = 0;
  Block result_;  // of the whole call: a large output that nobody may see before the end

  Request request_;
  Flight latest_;  // the span whose result is not known yet; or the last one, for an output that lies in its round
  Failure failure_ = kNoFailure;
  std::optional<InputCheck> check_;
};

}  // namespace infini::cuda

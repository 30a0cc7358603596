#include "core/call.h"

namespace infini {
namespace {

// A device tensor's numbers, on their way to JavaScript.
class ReadWork final : public Work {
 public:
  ReadWork(Backend& backend, const TensorMemory& from, void* to) : backend_(backend), from_(from), to_(to) {}
  int next_stage() override { return done_ ? 0 : 1; }
  void run(int) override {
    backend_.read(from_, to_, from_.bytes());
    done_ = true;
  }
  void commit() noexcept override {}

 private:
  Backend& backend_;
  const TensorMemory& from_;
  void* const to_;
  bool done_ = false;
};

}  // namespace

std::unique_ptr<Work> Call::begin(Backend& backend) {
  switch (kind) {
    case CallKind::Read: return std::make_unique<ReadWork>(backend, *source, tensors.output);
    case CallKind::Step: return batch->begin(tensors);
    case CallKind::Forward: return forward->begin();
    default: return stream->begin(kind, tensors);
  }
}

void Call::commit() {
  switch (kind) {
    case CallKind::Read: return;
    case CallKind::Step: return batch->commit(*work);
    case CallKind::Forward: return work->commit();
    default:
      stream->commit(kind, tensors, *work);
      tokens_after = stream->tokens();
  }
}

}  // namespace infini

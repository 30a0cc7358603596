#include "core/call.h"

#include "core/image.h"

namespace infini {
namespace {

// A device tensor's numbers or a stream's image, on their way to JavaScript.
template <class Copy> class CopyWork final : public Work {
 public:
  explicit CopyWork(Copy copy) : copy_(std::move(copy)) {}
  int next_stage() override { return done_ ? 0 : 1; }
  void run(int) override {
    copy_();
    done_ = true;
  }
  void commit() noexcept override {}

 private:
  Copy copy_;
  bool done_ = false;
};

template <class Copy> std::unique_ptr<Work> copy_work(Copy copy) {
  return std::make_unique<CopyWork<Copy>>(std::move(copy));
}

}  // namespace

std::unique_ptr<Work> Call::begin(Backend& backend) {
  switch (kind) {
    case CallKind::Read:
      return copy_work([this, &backend] { backend.read(*source, tensors.output, source->bytes()); });
    case CallKind::Snapshot:
      if (Image::bytes(stream->config, stream->position().open) > memory.front()->bytes()) {
        throw Error(ErrorCode::OutOfMemory, "Expected room for all open tokens of a snapshot but there are more of them");
      }
      return copy_work([this] { stream->read_image(tensors.output); });
    case CallKind::Step: return batch->begin(tensors);
    case CallKind::Forward: return forward->begin();
    default: return stream->begin(kind, tensors);
  }
}

void Call::commit() {
  switch (kind) {
    case CallKind::Read: return;
    case CallKind::Snapshot:
      tokens_after = stream->tokens();
      output_bytes = Image::bytes(stream->config, stream->position().open);
      return;
    case CallKind::Step: return batch->commit(*work);
    case CallKind::Forward: return work->commit();
    default:
      stream->commit(kind, tensors, *work);
      tokens_after = stream->tokens();
  }
}

}  // namespace infini

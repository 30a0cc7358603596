#include "core/call.h"

#include "core/image.h"

namespace infini {
namespace {

// A device tensor's numbers or a stream's image, on their way to JavaScript: part by part, so that others have their turn.
template <class Copy> class CopyWork final : public Work {
 public:
  CopyWork(int64_t parts, Copy copy) : parts_(parts), copy_(std::move(copy)) {}
  int next_stage() override { return next_ < parts_ ? 1 : 0; }
  void run(int) override { copy_(next_++); }
  void commit() noexcept override {}

 private:
  const int64_t parts_;
  Copy copy_;
  int64_t next_ = 0;
};

template <class Copy> std::unique_ptr<Work> copy_work(int64_t parts, Copy copy) {
  return std::make_unique<CopyWork<Copy>>(parts, std::move(copy));
}

}  // namespace

std::unique_ptr<Work> Call::begin(Backend& backend) {
  switch (kind) {
    case CallKind::Read:
      return copy_work(1, [this, &backend](int64_t) { backend.read(*source, tensors.output, source->bytes()); });
    case CallKind::Snapshot:
      if (Image::bytes(stream->config, stream->position().open) > output_bytes) {
        throw Error(ErrorCode::OutOfMemory, "Expected room for all open tokens of a snapshot but there are more of them");
      }
      return copy_work(stream->image_parts(), [this](int64_t part) { stream->read_image_part(part, tensors.output); });
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

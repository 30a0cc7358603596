#include "core/buffer.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <mutex>
#include <new>

namespace infini {
namespace {

// The last few large blocks of scratch and staging, for the next call of the same shape: taking 32 MB from the
// system and giving it back costs some 8000 page faults, a tenth of the call's own time. Few, so that calls of ever
// new sizes do not fill memory with blocks that nobody will want again.
class IdleBlocks {
 public:
  static constexpr size_t kSmallest = 64 << 10, kMostBlocks = 8;
#if defined(__SANITIZE_ADDRESS__)
  static constexpr size_t kMost = 0;  // reuse would hide a use after free
#else
  static constexpr size_t kMost = 128 << 20;
#endif

  void* take(size_t bytes) {
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < count_; ++i) {
      if (blocks_[i].bytes == bytes) return remove(i);
    }
    return nullptr;
  }

  void keep(void* data, size_t bytes, Ledger& ledger) {
    std::lock_guard lock(mutex_);
    blocks_[count_++] = {data, bytes, &ledger};
    held_ += bytes;
    ledger.idle_bytes += int64_t(bytes);
    while (held_ > kMost || count_ > kMostBlocks) std::free(remove(0));
  }

 private:
  struct Block {
    void* data;
    size_t bytes;
    Ledger* ledger;
  };
  void* remove(size_t i) {
    const Block block = blocks_[i];
    std::move(blocks_.begin() + i + 1, blocks_.begin() + count_--, blocks_.begin() + i);
    held_ -= block.bytes;
    block.ledger->idle_bytes -= int64_t(block.bytes);
    return block.data;
  }

  std::mutex mutex_;
  std::array<Block, kMostBlocks + 1> blocks_;  // the oldest first. Of its own memory: freeing must not ask for more
  size_t count_ = 0;
  size_t held_ = 0;
};

IdleBlocks& idle_blocks() {
  static IdleBlocks& blocks = *new IdleBlocks;  // never destroyed: engine threads outlive static destruction
  return blocks;
}

}  // namespace

Buffer::Buffer(size_t bytes, Ledger& ledger, Account account)
    : bytes_(charged(bytes)), ledger_(&ledger), account_(account) {
  if (!is_lasting(account) && bytes_ >= IdleBlocks::kSmallest) data_ = idle_blocks().take(bytes_);
  if (!data_) {
    data_ = std::aligned_alloc(64, bytes_);
    if (!data_) throw std::bad_alloc();
    if (!is_lasting(account)) ledger.allocated_bytes += int64_t(bytes_);
  }
  ledger.*account += int64_t(bytes_);
}

Buffer::~Buffer() {
  if (!data_) return;
  ledger_->*account_ -= int64_t(bytes_);
  if (!is_lasting(account_) && bytes_ >= IdleBlocks::kSmallest) {
    idle_blocks().keep(data_, bytes_, *ledger_);
  } else {
    std::free(data_);
  }
}

}  // namespace infini

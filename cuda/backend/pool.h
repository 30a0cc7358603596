// Memory in slots of fixed sizes, cut from slabs that are kept: cudaMalloc and cudaHostAlloc take far longer than a
// decoding step, and cudaFree waits for the whole device.
//
// A slab holds slots of one size. A size that is in demand gets larger slabs. Slabs without a slot in use are kept up
// to a bound, then given back, the oldest first. A slot may be reused as soon as its Block is gone: who destroys one
// knows that what is enqueued for it is done, or is followed on the same CUDA stream by whatever comes next.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/ledger.h"

namespace infini::cuda {

class Pool;
struct Slab;

// One slot, entered in an account of the ledger for as long as it lives.
class Block {
 public:
  Block() = default;
  Block(Block&& other) noexcept { swap(other); }
  Block& operator=(Block&& other) noexcept {
    Block(std::move(other)).swap(*this);
    return *this;
  }
  ~Block();

  // Exchanges the slots but not the accounts: scratch that becomes a stream's state is the stream's from then on.
  // Both are of the same size.
  void exchange(Block& other) noexcept {
    std::swap(slab_, other.slab_);
    std::swap(data_, other.data_);
  }

  explicit operator bool() const { return data_ != nullptr; }
  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }  // as many as were asked for

 private:
  friend class Pool;
  void swap(Block& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(slab_, other.slab_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(account_, other.account_);
  }

  Pool* pool_ = nullptr;
  Slab* slab_ = nullptr;
  char* data_ = nullptr;
  size_t bytes_ = 0;
  Account account_ = nullptr;
};

// Where slabs come from.
class Source {
 public:
  virtual ~Source() = default;
  virtual void* allocate(size_t bytes) = 0;  // null: there is no room. Throws Error for any other reason
  virtual void release(void* data) noexcept = 0;
  virtual uint64_t available() = 0;
};

class Pool {
 public:
  // Slabs without a slot in use are kept up to `most_idle` bytes.
  Pool(Ledger& ledger, std::unique_ptr<Source> source, size_t most_idle);
  ~Pool();

  // 256-byte aligned (as far as the source's memory is), contents undefined. Throws Error(OutOfMemory), in which
  // `what` names what there was no room for.
  Block take(size_t bytes, Account account, const std::string& what);

 private:
  friend class Block;
  using Slabs = std::list<std::unique_ptr<Slab>>;
  struct Size {
    size_t slot_bytes = 0, slots = 0, slabs = 0;
    std::vector<Slab*> open;  // with a slot that is not in use; has room for all, so that giving back needs no memory
  };

  void grow(Size& size, Account account, const std::string& what);
  bool release_oldest() noexcept;
  void give_back(Slab& slab, char* data) noexcept;
  void count_idle(int64_t bytes) { ledger_.idle_bytes += bytes; }

  Ledger& ledger_;
  const std::unique_ptr<Source> source_;
  const size_t most_idle_;
  std::mutex mutex_;
  std::map<size_t, Size> sizes_;
  Slabs busy_;    // with a slot in use
  Slabs vacant_;  // without, oldest first
  size_t vacant_bytes_ = 0;
};

}  // namespace infini::cuda

// An owned, aligned block of memory that is entered in a ledger for as long as it lives.
#pragma once

#include <cstdlib>
#include <new>
#include <utility>

#include "ledger.h"

namespace infini {

class Buffer {
 public:
  Buffer() = default;
  // Throws std::bad_alloc. Fresh memory is not touched: large blocks cost address space until they are written.
  Buffer(size_t bytes, Ledger& ledger, std::atomic<int64_t> Ledger::* account)
      : bytes_((bytes + 63) / 64 * 64), ledger_(&ledger), account_(account) {
    if (bytes_ == 0) bytes_ = 64;
    data_ = std::aligned_alloc(64, bytes_);
    if (!data_) throw std::bad_alloc();
    ledger.*account += int64_t(bytes_);
    if (account != &Ledger::stream_bytes) ledger.allocated_bytes += int64_t(bytes_);
  }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() {
    if (data_) ledger_->*account_ -= int64_t(bytes_);
    std::free(data_);
  }

  // Exchanges the blocks but not the accounts: scratch that becomes a stream's state is the stream's from then on.
  void exchange(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

  template <class T> T* as() const { return static_cast<T*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(ledger_, other.ledger_);
    std::swap(account_, other.account_);
  }

  void* data_ = nullptr;
  size_t bytes_ = 0;
  Ledger* ledger_ = nullptr;
  std::atomic<int64_t> Ledger::* account_ = nullptr;
};

}  // namespace infini

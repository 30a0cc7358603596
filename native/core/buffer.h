// An owned, aligned block of memory that is entered in a ledger for as long as it lives.
#pragma once

#include <cstddef>
#include <utility>

#include "core/ledger.h"

namespace infini {

class Buffer {
 public:
  Buffer() = default;
  // Throws std::bad_alloc. The memory is not touched: a large block costs address space until it is written.
  Buffer(size_t bytes, Ledger& ledger, Account account);
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer();

  // What so many bytes take.
  static size_t charged(size_t bytes) { return bytes == 0 ? 64 : (bytes + 63) / 64 * 64; }

  // Exchanges the blocks but not the accounts: scratch that becomes a stream's state is the stream's from then on.
  // Both are of the same size.
  void exchange(Buffer& other) noexcept { std::swap(data_, other.data_); }

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
  Account account_ = nullptr;
};

}  // namespace infini

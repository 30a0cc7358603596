// The shared memory of one block: variables, and the dynamic part, which ends at a guard page but for alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "emulation/location.h"

namespace infini::emulation {

constexpr size_t kSharedPerBlock = 48 * 1024;       // without asking for more
constexpr size_t kSharedPerBlockOptin = 99 * 1024;  // static and dynamic together: the smallest supported card

class SharedArena {
 public:
  SharedArena();
  ~SharedArena();
  SharedArena(const SharedArena&) = delete;
  SharedArena& operator=(const SharedArena&) = delete;

  // Empty again, for the next block.
  // `limit`: variables and the dynamic part together.
  void start(size_t dynamic_bytes, size_t limit, bool poison);

  unsigned char* dynamic() const { return base_ + dynamic_begin_; }
  void* variable(const void* tag, size_t bytes, size_t alignment, const Location& where);

  // Addresses, as the kernel sees them, are offsets from the start of the mapping.
  size_t offset(const void* pointer) const { return size_t(static_cast<const unsigned char*>(pointer) - base_); }
  bool maps(size_t offset) const { return offset < kMapped; }
  bool holds(size_t offset, size_t bytes) const;
  unsigned char* at(size_t offset) const { return base_ + offset; }
  // The offset as a person would give it.
  std::string describe(size_t offset) const;
  // False when bytes just behind the dynamic part have been written.
  bool intact() const;

  static constexpr size_t kMapped = 256 * 1024;

 private:
  struct Variable {
    const void* tag;
    size_t offset;
  };

  unsigned char* base_;
  size_t dynamic_begin_ = 0, dynamic_bytes_ = 0, static_end_ = 0, limit_ = 0;
  std::vector<Variable> variables_;
};

// Where the running block's shared memory has `bytes` at this address; fails when it has not.
unsigned char* shared_bytes(uint32_t address, size_t bytes, const char* what, const Location& where);

}  // namespace infini::emulation

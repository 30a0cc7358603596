// Scratch arrays of one kernel call, cut from one block that the calling thread keeps.
#pragma once

#include <cstddef>

#include "cpu/kernels.h"

namespace infini::cpu::INFINI_SIMD_LEVEL {

class Workspace {
 public:
  explicit Workspace(void* block) : next_(static_cast<char*>(block)) {}

  template <class T> T* take(size_t count) {
    T* array = reinterpret_cast<T*>(next_);
    next_ += (count * sizeof(T) + 63) / 64 * 64;
    return array;
  }

 private:
  char* next_;
};

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

// CUDA's runtime and the end of the process.
//
// The engine's threads are detached and may run until the very end, while the runtime takes itself down in exit().
// Every thread is `Inside` while it calls the runtime. Once exit() has begun, threads that are inside come to an end
// and no other gets in: it waits, for ever, which is not long.
#pragma once

#include <cuda_runtime.h>

namespace infini::cuda {

class Inside {
 public:
  Inside();
  ~Inside();
  Inside(const Inside&) = delete;

  // Once the runtime has started: what is registered last is called first.
  static void close_at_exit();
};

}  // namespace infini::cuda

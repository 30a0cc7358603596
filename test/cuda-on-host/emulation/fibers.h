// Fibers: a stack and a place to go on from. One per CUDA thread, all on the launching thread of the system.
#pragma once

#include <cstddef>
#include <vector>

#if !defined(__x86_64__) || defined(INFINI_UCONTEXT)
#include <ucontext.h>
#define INFINI_USE_UCONTEXT 1
#endif

namespace infini::emulation {

struct Context {
#ifdef INFINI_USE_UCONTEXT
  ucontext_t registers;
#else
  void* stack_pointer = nullptr;
#endif
  const void* stack = nullptr;  // with the next two: what AddressSanitizer has to be told
  size_t stack_bytes = 0;
  void* fake_stack = nullptr;
};

// Makes `context` begin with entry(), which calls entered() first and never returns.
void prepare(Context& context, unsigned char* stack, size_t bytes, void (*entry)());
void entered();
// Goes on in `to`, until somebody switches to `from` again; never, if it is the last switch.
void switch_context(Context& from, Context& to, bool last);

// Stacks, each with a guard page below, kept for the next launch.
class Stacks {
 public:
  unsigned char* take(size_t index, size_t bytes);
  // The stack with its guard page just below.
  bool guards(const void* address) const;

 private:
  std::vector<unsigned char*> stacks_;
  size_t bytes_ = 0;
};

}  // namespace infini::emulation

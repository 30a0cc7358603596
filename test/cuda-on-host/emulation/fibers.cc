#include "fibers.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#include "sanitizer.h"

namespace infini::emulation {

namespace {

constexpr size_t kPage = 4096;

// Whom the running context took over from, so that it can note the bounds of that stack: those of a thread of the
// system are known to AddressSanitizer alone.
[[maybe_unused]] Context* left = nullptr;

}  // namespace

#ifndef INFINI_USE_UCONTEXT

// Saves what a function must preserve, and the stack pointer; then the same backwards for the other context.
extern "C" void infini_switch_stacks(void** from, void* to);
asm(R"(
.pushsection .text
.globl infini_switch_stacks
.hidden infini_switch_stacks
.type infini_switch_stacks, @function
infini_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size infini_switch_stacks, .-infini_switch_stacks
.popsection
)");

#endif

void prepare(Context& context, unsigned char* stack, size_t bytes, void (*entry)()) {
  context.stack = stack;
  context.stack_bytes = bytes;
  context.fake_stack = nullptr;
  allow(stack, bytes);  // a fiber that was abandoned left its redzones
#ifdef INFINI_USE_UCONTEXT
  getcontext(&context.registers);
  context.registers.uc_stack.ss_sp = stack;
  context.registers.uc_stack.ss_size = bytes;
  context.registers.uc_link = nullptr;
  makecontext(&context.registers, entry, 0);
#else
  void** top = reinterpret_cast<void**>(stack + bytes);
  *--top = nullptr;  // entry's return address, and the alignment that a call leaves
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;  // the registers
  context.stack_pointer = top;
#endif
}

void entered() {
#ifdef INFINI_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(nullptr, &left->stack, &left->stack_bytes);
#endif
}

void switch_context(Context& from, Context& to, [[maybe_unused]] bool last) {
#ifdef INFINI_ADDRESS_SANITIZER
  left = &from;
  __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack, to.stack, to.stack_bytes);
#endif
#ifdef INFINI_USE_UCONTEXT
  swapcontext(&from.registers, &to.registers);
#else
  infini_switch_stacks(&from.stack_pointer, to.stack_pointer);
#endif
#ifdef INFINI_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(from.fake_stack, &left->stack, &left->stack_bytes);
#endif
}

unsigned char* Stacks::take(size_t index, size_t bytes) {
  if (bytes != bytes_) {
    for (unsigned char* stack : stacks_) munmap(stack - kPage, bytes_ + kPage);
    stacks_.clear();
    bytes_ = bytes;
  }
  while (stacks_.size() <= index) {
    void* map =
        mmap(nullptr, bytes + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) throw std::bad_alloc();
    mprotect(map, kPage, PROT_NONE);
    stacks_.push_back(static_cast<unsigned char*>(map) + kPage);
  }
  return stacks_[index];
}

bool Stacks::guards(const void* address) const {
  for (const unsigned char* stack : stacks_) {
    if (address < stack && address >= stack - kPage) return true;
  }
  return false;
}

}  // namespace infini::emulation

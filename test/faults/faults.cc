// Allocations of the addon that fail at random: linked into it by -DINFINI_FAULTS=ON, which also turns every call of the
// functions below into one of these.
#include <pthread.h>

#include <cerrno>

#include "control.h"

namespace {

bool fails() {
  infini::faults::Control* control = infini::faults::control();
  if (!control || infini::faults::spared > 0 || !control->host.next_fails()) return false;
  errno = ENOMEM;
  return true;
}

}  // namespace

extern "C" {

void* __real_malloc(size_t bytes);
void* __real_calloc(size_t count, size_t bytes);
void* __real_realloc(void* block, size_t bytes);
void* __real_aligned_alloc(size_t alignment, size_t bytes);
int __real_posix_memalign(void** block, size_t alignment, size_t bytes);
int __real_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*body)(void*), void* argument);

void* __wrap_malloc(size_t bytes) { return fails() ? nullptr : __real_malloc(bytes); }
void* __wrap_calloc(size_t count, size_t bytes) { return fails() ? nullptr : __real_calloc(count, bytes); }
void* __wrap_realloc(void* block, size_t bytes) { return fails() ? nullptr : __real_realloc(block, bytes); }
void* __wrap_aligned_alloc(size_t alignment, size_t bytes) {
  return fails() ? nullptr : __real_aligned_alloc(alignment, bytes);
}
int __wrap_posix_memalign(void** block, size_t alignment, size_t bytes) {
  return fails() ? ENOMEM : __real_posix_memalign(block, alignment, bytes);
}
int __wrap_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*body)(void*), void* argument) {
  return fails() ? EAGAIN : __real_pthread_create(thread, attributes, body, argument);
}

}  // extern "C"

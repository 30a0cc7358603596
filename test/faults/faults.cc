// Allocations of the addon that fail at random: linked into it by -DINFINI_FAULTS=ON, which also turns every call of the
// functions below into one of these. The environment variable INFINI_FAULTS names a file of four 32-bit numbers that this
// process and the test share: one in how many fails (0: none), the seed, how many were asked for, how many failed.
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>

namespace {

struct Control {
  std::atomic<uint32_t> one_in, seed, asked, failed;
};

Control* control = nullptr;

__attribute__((constructor)) void open_control() {
  const char* name = std::getenv("INFINI_FAULTS");
  const int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
  if (file < 0) return;
  void* shared = mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (shared != MAP_FAILED) control = static_cast<Control*>(shared);
}

bool fails() {
  const uint32_t one_in = control ? control->one_in.load() : 0;
  if (one_in == 0) return false;
  uint32_t bits = control->seed + 0x9e3779b9u * ++control->asked;
  bits = (bits ^ (bits >> 16)) * 0x85ebca6bu;
  bits = (bits ^ (bits >> 13)) * 0xc2b2ae35u;
  if ((bits ^ (bits >> 16)) % one_in != 0) return false;
  ++control->failed;
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

#include "backend/runtime.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <thread>

namespace infini::cuda {
namespace {

using namespace std::chrono_literals;

constexpr auto kLongestGoodbye = 5s;  // rather a crash in the last moment than a process that does not end

std::atomic<int> threads_inside{0};
std::atomic<bool> closed{false};
thread_local int depth = 0;

void close() {
  closed = true;
  ++depth;  // this thread may go on: what it still destroys may hold device memory
  const auto deadline = std::chrono::steady_clock::now() + kLongestGoodbye;
  while (threads_inside > 0 && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(1ms);
}

}  // namespace

Inside::Inside() {
  if (depth++ > 0) return;
  ++threads_inside;
  if (!closed) return;
  --threads_inside;
  for (;;) std::this_thread::sleep_for(1h);
}

Inside::~Inside() {
  if (--depth == 0) --threads_inside;
}

void Inside::close_at_exit() {
  static std::once_flag& once = *new std::once_flag;
  std::call_once(once, [] { std::atexit(close); });
}

}  // namespace infini::cuda

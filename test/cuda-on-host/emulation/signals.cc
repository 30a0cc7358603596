#include "signals.h"

#include <sys/time.h>
#include <ucontext.h>

#include <csignal>

#include "device_memory.h"
#include "machine.h"
#include "report.h"
#include "sanitizer.h"

namespace infini::emulation {

namespace {

uint64_t switches_at_last_alarm;

Site interrupted_at([[maybe_unused]] void* context) {
#if defined(__x86_64__) && defined(__linux__)
  const auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  return site_of(reinterpret_cast<const void*>(registers[REG_RIP] + 1));
#else
  return 0;
#endif
}

std::string latest_call() {
  const Thread& self = *current_thread;
  return self.where.line() ? ", after " + std::string(self.activity) + " at " + name(self.where) : "";
}

// Leaves the handler by switching to another stack, as fail() does: the interrupted fiber is never gone on with.
void on_fault(int signal, siginfo_t* info, void* context) {
  if (!current_thread) {
    std::signal(signal, SIG_DFL);
    return;
  }
  const void* address = info->si_addr;
  const SharedArena& arena = *current_thread->block->arena;
  std::string what;
  if (is_device_address(address)) {
    what = "access outside of device memory: " + describe_device_address(address);
  } else if (arena.maps(arena.offset(address))) {
    what = "access out of bounds: " + arena.describe(arena.offset(address));
  } else if (machine.stacks.guards(address)) {
    what = "the stack of a fiber is exhausted (Settings::stack_bytes)";
  } else {
    what = "access to an address that is nobody's, or misaligned";
  }
  fail(what + latest_call(), interrupted_at(context));
}

void on_alarm(int, siginfo_t*, void* context) {
  const bool stuck = current_thread && machine.statistics.switches == switches_at_last_alarm;
  switches_at_last_alarm = machine.statistics.switches;
  if (stuck) fail("a thread spins and never calls the emulation" + latest_call(), interrupted_at(context));
}

void set_timer(unsigned seconds) {
  itimerval timer{};
  timer.it_interval.tv_sec = timer.it_value.tv_sec = seconds;
  setitimer(ITIMER_REAL, &timer, nullptr);
}

}  // namespace

void watch_kernel() {
  static unsigned char stack[64 * 1024];
  stack_t alternative{};
  alternative.ss_sp = stack;
  alternative.ss_size = sizeof stack;
  sigaltstack(&alternative, nullptr);
  struct sigaction action{};
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  action.sa_sigaction = on_fault;
  if (!kAddressSanitizer) {  // which explains such faults better
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
  }
  action.sa_sigaction = on_alarm;
  sigaction(SIGALRM, &action, nullptr);
  switches_at_last_alarm = ~uint64_t(0);
  set_timer(settings.watchdog_seconds);
}

void unwatch_kernel() { set_timer(0); }

}  // namespace infini::emulation

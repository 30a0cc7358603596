#include "check.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#ifdef INFINI_EMULATION
#include "emulation/settings.h"
#endif

namespace check {

namespace {

struct Test {
  const char* name;
  void (*body)();
};

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

const char* running = "";

uint64_t choose_seed() {
  if (const char* given = std::getenv("SEED")) return std::strtoull(given, nullptr, 10);
  return std::random_device{}() % 1000000;
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

#ifdef INFINI_EMULATION
size_t live_allocations() { return infini::emulation::statistics().allocations; }
#else
size_t live_allocations() { return 0; }
#endif

// A filter is a test's name, or part of several.
bool matches(const Test& test, const std::string& filter) {
  const bool whole =
      std::any_of(tests().begin(), tests().end(), [&](const Test& other) { return other.name == filter; });
  return whole ? test.name == filter : std::strstr(test.name, filter.c_str()) != nullptr;
}

// Empty when the test passes.
std::string run(const Test& test) {
  running = test.name;
  const size_t before = live_allocations();
  try {
    test.body();
  } catch (const std::exception& error) {
    const std::string reason = error.what();
    return reason.empty() ? "an exception" : reason;
  }
  if (live_allocations() != before) return "device memory is left allocated";
  return "";
}

}  // namespace

Registration::Registration(const char* name, void (*body)()) { tests().push_back({name, body}); }

void fail(const char* file, int line, const std::string& reason) {
  const char* slash = std::strrchr(file, '/');
  throw Failure(reason + " (" + (slash ? slash + 1 : file) + ":" + std::to_string(line) + ")");
}

void close(const char* file, int line, const char* text, double actual, double expected, double tolerance) {
  if (std::fabs(actual - expected) <= tolerance || actual == expected) return;
  std::ostringstream reason;
  reason.precision(9);
  reason << text << " is " << actual << ", expected " << expected << " within " << tolerance;
  fail(file, line, reason.str());
}

void bounded(const char* file, int line, const char* text, double error, double bound) {
  if (error <= bound) return;
  std::ostringstream reason;
  reason << text << " is " << error << ", the bound is " << bound;
  fail(file, line, reason.str());
}

void succeeded(const char* file, int line, const char* text, cudaError_t error) {
  if (error == cudaSuccess) return;
  fail(file, line, std::string(text) + ": " + cudaGetErrorName(error) + ", " + cudaGetErrorString(error));
}

uint64_t seed() {
  static const uint64_t chosen = choose_seed();
  return chosen;
}

std::mt19937_64 random() {
  std::seed_seq mixed{seed(), uint64_t(std::hash<std::string>{}(running))};
  return std::mt19937_64(mixed);
}

#ifdef INFINI_EMULATION
void each_schedule(const std::function<void()>& body) {
  using namespace infini::emulation;
  struct Run {
    const char* name;
    Schedule schedule;
    uint64_t seed;
  };
  std::vector<Run> runs = {{"in order", Schedule::InOrder, 1}, {"priority", Schedule::Priority, seed() * 2 + 1}};
#ifndef INFINI_FEW_SCHEDULES
  runs.push_back({"reverse", Schedule::Reverse, 1});
  runs.push_back({"priority", Schedule::Priority, seed() * 2 + 2});
#endif
  struct Restore {
    Settings before = settings;
    ~Restore() { settings = before; }
  } restore;
  for (const Run& run : runs) {
    settings.schedule = run.schedule;
    settings.async = Async::Lazy;
    settings.seed = run.seed;
    try {
      body();
    } catch (const std::exception& error) {
      throw Failure(std::string(error.what()) + " [schedule: " + run.name + ", seed " + std::to_string(run.seed) + "]");
    }
  }
}
#else
void each_schedule(const std::function<void()>& body) { body(); }
#endif

}  // namespace check

int main(int count, char** arguments) {
  using namespace check;
#ifdef INFINI_EMULATION
  infini::emulation::settings.throw_errors = true;
  infini::emulation::settings.signals = true;
#endif
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const bool list = count > 1 && std::strcmp(arguments[1], "--list") == 0;
  const std::vector<std::string> filters(arguments + 1 + list, arguments + count);
  if (!list) std::printf("# seed %llu\n", static_cast<unsigned long long>(seed()));
  int run_tests = 0, failed = 0;
  for (const Test& test : tests()) {
    const auto chosen = [&](const std::string& filter) { return matches(test, filter); };
    if (!filters.empty() && std::none_of(filters.begin(), filters.end(), chosen)) continue;
    ++run_tests;
    if (list) {
      std::printf("%s\n", test.name);
      continue;
    }
    const std::string reason = run(test);
    failed += !reason.empty();
    if (reason.empty()) {
      std::printf("ok %s\n", test.name);
    } else {
      std::printf("not ok %s: %s\n", test.name, one_line(reason).c_str());
    }
  }
  if (run_tests == 0) std::printf("not ok: no test has such a name\n");
  return failed != 0 || run_tests == 0;
}

// AddressSanitizer asks. A kernel that fails leaves its fibers, and what they own, behind.
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }

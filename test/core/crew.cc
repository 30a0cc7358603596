// The crew under calls from several threads: every unit once, none after the call is over, failures told.
// Compiled with -fsanitize=thread by core.test.ts.
#include "core/crew.h"

#include <random>

#include "core/error.h"
#include "storm.h"

using namespace infini;
using storm::check;

namespace {

struct Seen {
  std::atomic<int64_t> stages{0}, units{0}, helped{0}, failures{0};
} seen;

struct FakeWork final : Work {
  FakeWork(int units, int fails) : runs(size_t(units)), fails(fails) {}
  int next_stage() override { return 0; }
  void run(int unit) override {
    check(!over, "a unit ran when the call was over");
    ++runs[size_t(unit)];
    if (std::this_thread::get_id() != caller) ++helped;
    sum += unit;  // what units write, the caller reads
    if (unit == fails) throw Error(ErrorCode::Device, "a unit failed");
    if (unit % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  void commit() override {}
  std::vector<std::atomic<int>> runs;
  const int fails;
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<bool> over{false};
  std::atomic<int> helped{0}, sum{0};
};

void user(uint32_t seed, int rounds) {
  std::mt19937 random(seed);
  for (int round = 0; round < rounds; ++round) {
    const int units = 1 + int(random() % 9), threads = 1 + int(random() % 4);
    const int fails = random() % 5 == 0 ? int(random() % uint32_t(units)) : -1;
    auto work = std::make_unique<FakeWork>(units, fails);
    bool failed = false;
    try {
      Crew::run(*work, units, threads);
    } catch (const Error&) {
      failed = true;
    }
    work->over = true;
    check(failed == (fails >= 0), "a failure was lost, or made up");
    for (int unit = 0; unit < units; ++unit) {
      const int runs = work->runs[size_t(unit)];
      check(runs <= 1 && (runs == 1 || failed), "a unit did not run once");
    }
    check(threads > 1 || work->helped == 0, "a call that wanted no help had some");
    ++seen.stages;
    seen.units += units;
    seen.helped += work->helped;
    seen.failures += failed;
    if (random() % 50 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));  // the crew may fall asleep
  }
}

}  // namespace

int main(int count, char** arguments) {
  const storm::Arguments given = storm::read_arguments(count, arguments);
  const int rounds = 50 * given.rounds;
  storm::run_users(given.seed, [&](uint32_t seed) { user(seed, rounds); });
  check(seen.stages == 3 * rounds && seen.failures > 0, "the storm was no storm");
  if (std::thread::hardware_concurrency() > 1) check(seen.helped > 0, "nobody was helped");
  std::printf("ok crew: %ld stages, %ld units, %ld by the crew, %ld failures\n", long(seen.stages), long(seen.units),
              long(seen.helped), long(seen.failures));
  storm::end();
}

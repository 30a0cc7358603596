// What the programs of this folder have in common: a storm of some threads, each with random numbers of its own.
//
// Usage: <program> <seed> <rounds>. Prints what it saw; exits with 1 and a sentence when something is wrong.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace storm {

inline void check(bool condition, const char* what) {
  if (condition) return;
  std::printf("not ok: %s\n", what);
  std::fflush(stdout);
  std::_Exit(1);  // threads are at work
}

struct Arguments {
  uint32_t seed;
  int rounds;
};

inline Arguments read_arguments(int count, char** arguments) {
  return {count > 1 ? uint32_t(std::atoll(arguments[1])) : 1, count > 2 ? std::atoi(arguments[2]) : 20};
}

// user(seed) on three threads, until all are done.
template <class User> void run_users(uint32_t seed, User user) {
  std::vector<std::thread> users;
  for (uint32_t i = 0; i < 3; ++i) users.emplace_back(user, seed + i);
  for (std::thread& one : users) one.join();
}

// A minute at most.
template <class Condition> void wait_until(Condition condition, const char* otherwise) {
  for (int wait = 0; !condition(); ++wait) {
    check(wait < 60000, otherwise);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// The engines' threads, and the crew's, never end.
[[noreturn]] inline void end() {
  std::fflush(stdout);
  std::_Exit(0);
}

}  // namespace storm

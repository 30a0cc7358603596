// A small test harness, for the emulation and for a real GPU alike (then built by nvcc).
//
//   TEST(forward_of_one_token) { ...CHECK(x == y)... }       a failed check ends the test
//   kernel_tests [--list] [part of a name]...                prints `ok name` or `not ok name: reason`
//
// Inputs are fresh random numbers in every run; the seed is printed, and SEED=n in the environment repeats a run.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace check {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Registration {
  Registration(const char* name, void (*body)());
};

#define TEST(name)                                                          \
  static void test_##name();                                                \
  static const check::Registration registration_##name(#name, test_##name); \
  static void test_##name()

[[noreturn]] void fail(const char* file, int line, const std::string& reason);

#define CHECK(condition) ((condition) ? void() : check::fail(__FILE__, __LINE__, #condition))
// |actual - expected| <= tolerance; NaN is never close.
#define CHECK_CLOSE(actual, expected, tolerance) \
  check::close(__FILE__, __LINE__, #actual, double(actual), double(expected), double(tolerance))
// error <= bound, for an error computed before.
#define CHECK_ERROR(error, bound) check::bounded(__FILE__, __LINE__, #error, double(error), double(bound))
#define CHECK_CUDA(call) check::succeeded(__FILE__, __LINE__, #call, call)

void close(const char* file, int line, const char* text, double actual, double expected, double tolerance);
void bounded(const char* file, int line, const char* text, double error, double bound);
void succeeded(const char* file, int line, const char* text, cudaError_t error);

// Norm of the difference over norm of what is expected; infinite when anything actual is not finite.
template <class Actual, class Expected>
double relative_error(const Actual* actual, const Expected* expected, size_t count) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < count; ++i) {
    if (!std::isfinite(double(actual[i]))) return INFINITY;
    difference += (double(actual[i]) - double(expected[i])) * (double(actual[i]) - double(expected[i]));
    norm += double(expected[i]) * double(expected[i]);
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}
template <class Actual, class Expected>
double relative_error(const std::vector<Actual>& actual, const std::vector<Expected>& expected) {
  return actual.size() == expected.size() ? relative_error(actual.data(), expected.data(), actual.size()) : INFINITY;
}

// The seed of this run, and a generator for the running test: the same whichever other tests run.
uint64_t seed();
std::mt19937_64 random();

// Runs the body under every schedule that the tests use; on a GPU, once.
void each_schedule(const std::function<void()>& body);

}  // namespace check

// The limits that a benchmark holds its figures against, measured on the spot.
#include "cpu/floors.h"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <thread>
#include <vector>

#include "cpu/kernels.h"

namespace infini::cpu {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The sum over the threads of what each does a second, all at work at once: the best of some tries.
template <class Body> double best_rate(int threads, Body body) {
  double best = 0;
  for (int attempt = 0; attempt < 5; ++attempt) {
    std::vector<double> rates(size_t(threads), 0.0);
    std::vector<std::thread> workers;
    auto work = [&](int i) {
      double done = 0;
      const auto start = Clock::now();
      while (seconds_since(start) < 0.02) done += body(i);
      rates[size_t(i)] = done / seconds_since(start);
    };
    try {
      for (int i = 1; i < threads; ++i) workers.emplace_back(work, i);
    } catch (const std::system_error&) {  // then with those there are
    }
    work(0);
    for (std::thread& worker : workers) worker.join();
    double total = 0;
    for (double rate : rates) total += rate;
    best = std::max(best, total);
  }
  return best;
}

}  // namespace

double peak_flops(int threads) {
  const Kernels& kernels = select_kernels();
  std::vector<float> sinks(size_t(threads) * 16);
  return best_rate(threads, [&](int i) { return kernels.multiply_adds(100'000, &sinks[size_t(i) * 16]); });
}

double tile_flops(int threads) {
  const Kernels& kernels = select_kernels();
  std::vector<float> sinks(size_t(threads) * 16);
  if (kernels.multiply_tiles(1, sinks.data()) == 0) return 0;
  return best_rate(threads, [&](int i) { return kernels.multiply_tiles(1000, &sinks[size_t(i) * 16]); });
}

double triad_bandwidth(int threads, int64_t bytes) {
  const Kernels& kernels = select_kernels();
  const int64_t each = std::max<int64_t>(16, bytes / threads / 12 / 16 * 16);  // of each array
  std::vector<std::vector<float>> data;
  for (int i = 0; i < threads; ++i) data.emplace_back(size_t(each) * 3, 1.0f);
  return best_rate(threads, [&](int i) {
    float* own = data[size_t(i)].data();
    kernels.triad(own, own + each, each, own + 2 * each);
    return double(each) * 12;
  });
}

double read_bandwidth(int threads, int64_t bytes) {
  const Kernels& kernels = select_kernels();
  const int64_t each = std::max<int64_t>(128, bytes / threads / 4 / 128 * 128);
  std::vector<float> sinks(size_t(threads) * 16);
  std::vector<std::vector<float>> data;
  for (int i = 0; i < threads; ++i) data.emplace_back(size_t(each), 1.0f);
  return best_rate(threads, [&](int i) {
    kernels.read_through(data[size_t(i)].data(), each, &sinks[size_t(i) * 16]);
    return double(each) * 4;
  });
}

}  // namespace infini::cpu

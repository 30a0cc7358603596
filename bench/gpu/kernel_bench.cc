// Times the kernels with CUDA events, the L2 cache flushed before each run. Prints JSON, one object a line: first the
// device, then one for each case, with a time only when its results are right.
//   kernel_bench [--kinds forward,state,step,decode] [--segments 512,2048] [--dims 64,128] [--heads 8,32]
//                [--streams 1,8,64] [--seconds 0.3] [--spoil 1]      --spoil: to see that wrong results are refused

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "problem.h"

namespace infini::cuda::bench {
namespace {

const std::map<std::string, Kind> kKinds = {
    {"forward", Kind::Forward}, {"state", Kind::State}, {"step", Kind::Step}, {"decode", Kind::Decode}};

struct Options {
  std::vector<std::string> kinds = {"forward", "state", "step", "decode"};
  std::vector<int> segments = {512, 2048}, dims = {64, 128}, heads = {8, 32}, streams = {1, 8, 64};
  double seconds = 0.3;
  bool spoil = false;
};

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> words(1);
  for (char c : list) {
    if (c == ',') {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  return words;
}

std::vector<int> numbers(const std::string& list) {
  std::vector<int> values;
  for (const std::string& word : split(list)) {
    const int value = std::atoi(word.c_str());
    if (value <= 0) throw std::runtime_error("expected positive numbers but received '" + list + "'");
    values.push_back(value);
  }
  return values;
}

Options parse(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; i += 2) {
    const std::string name = arguments[i];
    if (i + 1 == count) throw std::runtime_error(name + " needs a value");
    const std::string value = arguments[i + 1];
    if (name == "--kinds") {
      options.kinds = split(value);
      for (const std::string& kind : options.kinds) {
        if (!kKinds.count(kind)) throw std::runtime_error("there is no kind '" + kind + "'");
      }
    } else if (name == "--segments") {
      options.segments = numbers(value);
    } else if (name == "--dims") {
      options.dims = numbers(value);
    } else if (name == "--heads") {
      options.heads = numbers(value);
    } else if (name == "--streams") {
      options.streams = numbers(value);
    } else if (name == "--seconds") {
      options.seconds = std::atof(value.c_str());
    } else if (name == "--spoil") {
      options.spoil = true;
    } else {
      throw std::runtime_error("there is no option " + name);
    }
  }
  return options;
}

class Stopwatch {
 public:
  explicit Stopwatch(size_t l2_bytes) : flush_(4 * l2_bytes) {
    expect_success(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    expect_success(cudaEventCreateWithFlags(&start_, cudaEventDefault));
    expect_success(cudaEventCreateWithFlags(&end_, cudaEventDefault));
  }
  ~Stopwatch() {
    cudaEventDestroy(end_);
    cudaEventDestroy(start_);
    cudaStreamDestroy(stream_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  cudaStream_t stream() const { return stream_; }

  // Microseconds of one run. The flush also gives the host time to enqueue all of it.
  template <class Body> double once(Body body) {
    expect_success(cudaMemsetAsync(flush_.get(), 0, flush_.bytes(), stream_));
    expect_success(cudaEventRecord(start_, stream_));
    body();
    expect_success(cudaEventRecord(end_, stream_));
    expect_success(cudaEventSynchronize(end_));
    float milliseconds = 0;
    expect_success(cudaEventElapsedTime(&milliseconds, start_, end_));
    return milliseconds * 1e3;
  }

  // Sorted times: at least five, for about `seconds`.
  template <class Body> std::vector<double> many(double seconds, Body body) {
    std::vector<double> times;
    double spent = 0;
    while (times.size() < 5 || (spent < seconds * 1e6 && times.size() < 1000)) {
      times.push_back(once(body));
      spent += times.back();
    }
    std::sort(times.begin(), times.end());
    return times;
  }

 private:
  DeviceArray<unsigned char> flush_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t start_ = nullptr, end_ = nullptr;
};

double copy_gigabytes(Stopwatch& stopwatch, size_t l2_bytes) {
  const DeviceArray<unsigned char> from(8 * l2_bytes), to(8 * l2_bytes);
  const std::vector<double> times = stopwatch.many(0.05, [&] {
    expect_success(cudaMemcpyAsync(to.get(), from.get(), from.bytes(), cudaMemcpyDeviceToDevice, stopwatch.stream()));
  });
  return 2.0 * double(from.bytes()) / times[times.size() / 2] / 1e3;
}

// Returns whether the results were right.
bool measure(const std::string& kind, const Case& which, const Options& options, Stopwatch& stopwatch) {
  std::printf("{\"kind\": \"%s\", \"segment\": %d, \"dim\": %d, \"heads\": %d, \"streams\": %d, \"open\": %d, ", kind.c_str(),
              which.segment, which.dim, which.heads, which.streams, which.open());
  std::string wrong;
  std::vector<double> times;
  try {
    Problem problem(which, 20240117);
    times = stopwatch.many(options.seconds, [&] { problem.enqueue(stopwatch.stream()); });
    if (options.spoil) problem.spoil();
    wrong = problem.wrong();
  } catch (const std::exception& error) {
    wrong = error.what();
  }
  if (wrong.empty()) {
    std::printf("\"microseconds\": %.3f, \"fastest\": %.3f, \"runs\": %zu}\n", times[times.size() / 2], times[0], times.size());
  } else {
    std::printf("\"wrong\": \"%s\"}\n", wrong.c_str());
  }
  std::fflush(stdout);
  return wrong.empty();
}

int run(const Options& options) {
  cudaDeviceProp properties{};
  int driver = 0, runtime = 0;
  expect_success(cudaGetDeviceProperties(&properties, 0));
  expect_success(cudaDriverGetVersion(&driver));
  expect_success(cudaRuntimeGetVersion(&runtime));
  const size_t l2_bytes = size_t(properties.l2CacheSize);
  Stopwatch stopwatch(l2_bytes);
  std::printf("{\"device\": \"%s\", \"computeCapability\": \"%d.%d\", \"multiprocessors\": %d, \"driver\": %d, \"runtime\": %d, "
              "\"copyGigabytes\": %.1f}\n",
              properties.name, properties.major, properties.minor, properties.multiProcessorCount, driver, runtime,
              copy_gigabytes(stopwatch, l2_bytes));
  bool right = true;
  for (const std::string& kind : options.kinds) {
    for (int segment : options.segments) {
      for (int dim : options.dims) {
        for (int heads : options.heads) {
          for (int streams : options.streams) {
            right &= measure(kind, {kKinds.at(kind), segment, dim, heads, streams}, options, stopwatch);
          }
        }
      }
    }
  }
  return right ? 0 : 1;
}

}  // namespace
}  // namespace infini::cuda::bench

int main(int count, char** arguments) {
  try {
    return infini::cuda::bench::run(infini::cuda::bench::parse(count, arguments));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "kernel_bench: %s\n", error.what());
    return 2;
  }
}

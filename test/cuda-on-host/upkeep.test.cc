// Append and check through their launchers, compared byte for byte and number for number with plain loops.
#include <cmath>
#include <cstring>
#include <vector>

#include "check.h"
#include "core/segments.h"
#include "device_array.h"
#include "launch.h"

namespace infini::cuda {
namespace {

using Numbers = std::vector<double>;
using Random = std::mt19937_64;

struct Config {
  Element element = Element::Float32;
  int heads = 1, kv_heads = 1, head_dim = 16, value_dim = 16, segment_length = 64;

  Shape shape() const {
    return {element, false, false, heads, kv_heads, head_dim, value_dim, segment_length, 1.0f, nullptr, nullptr};
  }
};

constexpr Element kElements[] = {Element::Float32, Element::BFloat16, Element::Float16};

Numbers draw(const Config& config, size_t count, Random& random) {
  std::normal_distribution<double> normal;
  Numbers numbers(count);
  for (double& x : numbers) x = rounded(config.element, normal(random));
  return numbers;
}

bool same(const Numbers& a, const Numbers& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i] && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
  }
  return true;
}

struct Call {
  int open, tokens;
};

// Runs append for all calls at once; every cache is NaN before, so what was open stays NaN too.
void check_append(const Config& config, const std::vector<Call>& calls, Random& random) {
  struct Tensor {
    int dim;
    Numbers tokens, expected;
    ElementArray input, cache;
  };
  std::vector<Tensor> tensors;  // of each call: keys, values
  std::vector<Job> jobs;
  int most = 0;
  for (const Call& call : calls) {
    const Pieces pieces(call.open, call.tokens, config.segment_length);
    Job job{};
    job.tokens = call.tokens;
    job.open = call.open;
    job.pieces = int(pieces.size());
    job.borders = int(pieces.completed());
    const int left = (call.open + call.tokens) % config.segment_length;  // open after the call
    const int fresh = std::min(left, call.tokens);
    most = std::max(most, fresh);
    for (int dim : {config.head_dim, config.value_dim}) {
      Tensor tensor;
      tensor.dim = dim;
      tensor.tokens = draw(config, size_t(call.tokens) * config.kv_heads * dim, random);
      tensor.expected = Numbers(size_t(config.kv_heads) * config.segment_length * dim, NAN);
      for (int i = 0; i < fresh; ++i) {
        for (int head = 0; head < config.kv_heads; ++head) {
          const double* from = &tensor.tokens[(size_t(call.tokens - fresh + i) * config.kv_heads + head) * dim];
          std::copy(from, from + dim,
                    &tensor.expected[(size_t(head) * config.segment_length + left - fresh + i) * dim]);
        }
      }
      tensor.input = ElementArray(config.element, tensor.tokens);
      tensor.cache = ElementArray(config.element, tensor.expected.size());
      tensors.push_back(std::move(tensor));
    }
    const Tensor &keys = tensors[tensors.size() - 2], &values = tensors.back();
    job.key = keys.input.get();
    job.value = values.input.get();
    job.cached_keys = keys.cache.get();
    job.cached_values = values.cache.get();
    jobs.push_back(job);
  }
  const DeviceArray<Job> device_jobs(jobs);
  CHECK_CUDA(launch_append(config.shape(), device_jobs.get(), int(jobs.size()), most, nullptr));
  for (const Tensor& tensor : tensors) {
    CHECK(same(tensor.cache.download(), tensor.expected));
    CHECK(same(tensor.input.download(), tensor.tokens));
  }
}

TEST(append_small_and_large_pieces) {
  auto random = check::random();
  check::each_schedule([&] {
    for (Element element : kElements) {
      for (int dim : {1, 7, 8, 64, 100, 256}) {
        for (int kv_heads : {1, 3}) {
          Config config = {.element = element, .kv_heads = kv_heads, .head_dim = dim, .value_dim = 24,
                           .segment_length = 50};
          // In the open segment; filling it; leaving nothing over; and going on into the next ones.
          check_append(config, {{0, 1}, {49, 1}, {0, 50}, {20, 30}, {3, 40}, {45, 7}, {10, 190}, {0, 100}, {49, 50}},
                       random);
        }
      }
    }
  });
}

TEST(append_nothing) {
  auto random = check::random();
  check_append({}, {{0, 64}, {10, 54}}, random);
}

// ---- check

constexpr Site kSites[] = {kQuery, kKey, kValue};

struct Bad {
  int site;
  long long token;
};

// Runs check for one stream among two good ones, with these values not finite; returns what it noted.
Failure run_check(const Config& config, int tokens, const std::vector<Bad>& bads, double bad, Random& random,
                  bool query_only = false) {
  const int widths[] = {config.heads * config.head_dim, config.kv_heads * config.head_dim,
                        config.kv_heads * config.value_dim};
  std::vector<ElementArray> tensors;
  const DeviceArray<Failure> failures(std::vector<Failure>(3, kNoFailure));
  std::vector<Job> jobs;
  for (int i = 0; i < 3; ++i) {
    Job job{};
    job.tokens = i == 1 ? tokens : 1 + i;
    job.first_token = 100 * i;
    job.failure = failures.get() + i;
    const void** const places[] = {&job.query, &job.key, &job.value};
    for (int site : kSites) {
      Numbers numbers = draw(config, size_t(job.tokens) * widths[site], random);
      for (const Bad& at : bads) {
        if (i == 1 && at.site == site) numbers[size_t(at.token) * widths[site] + random() % widths[site]] = bad;
      }
      tensors.emplace_back(config.element, numbers);
      if (!query_only || site == kQuery) *places[site] = tensors.back().get();
    }
    jobs.push_back(job);
  }
  const DeviceArray<Job> device_jobs(jobs);
  CHECK_CUDA(launch_check(config.shape(), device_jobs.get(), 3, std::max(tokens, 3), nullptr));
  const std::vector<Failure> found = failures.download();
  CHECK(found[0] == kNoFailure && found[2] == kNoFailure);
  return found[1];
}

Failure at(int site, long long token) { return Failure((100 + token) * 8 + site); }

TEST(check_finds_every_value) {
  auto random = check::random();
  check::each_schedule([&] {
    for (Element element : kElements) {
      for (double bad : {double(NAN), double(INFINITY), -double(INFINITY)}) {
        for (int dim : {1, 5, 64}) {
          Config config = {.element = element, .heads = 4, .kv_heads = 2, .head_dim = dim, .value_dim = 7};
          for (int tokens : {1, 3, 300}) {
            CHECK(run_check(config, tokens, {}, bad, random) == kNoFailure);
            for (int site : kSites) {
              for (long long token : {0, tokens / 2, tokens - 1}) {
                CHECK(run_check(config, tokens, {{site, token}}, bad, random) == at(site, token));
              }
            }
          }
        }
      }
    }
  });
}

// The largest numbers are finite.
TEST(check_lets_the_largest_pass) {
  auto random = check::random();
  for (Element element : kElements) {
    const double largest =
        element == Element::Float32 ? 3.402823466e38 : element == Element::BFloat16 ? 3.3895e38 : 65504;
    CHECK(run_check({.element = element}, 5, {{kQuery, 1}, {kKey, 2}, {kValue, 3}}, -largest, random) == kNoFailure);
  }
}

TEST(check_notes_the_first_token_and_the_first_input) {
  auto random = check::random();
  check::each_schedule([&] {
    for (Element element : kElements) {
      Config config = {.element = element, .heads = 2, .kv_heads = 2, .head_dim = 100, .value_dim = 90};
      CHECK(run_check(config, 400, {{kValue, 7}, {kKey, 8}, {kQuery, 9}}, NAN, random) == at(kValue, 7));
      CHECK(run_check(config, 400, {{kValue, 399}, {kKey, 399}}, NAN, random) == at(kKey, 399));
      CHECK(run_check(config, 400, {{kValue, 5}, {kKey, 5}, {kQuery, 5}, {kQuery, 390}}, NAN, random) == at(kQuery, 5));
      std::vector<Bad> everything;
      for (long long token = 3; token < 400; ++token) everything.push_back({kKey, token});
      CHECK(run_check(config, 400, everything, NAN, random) == at(kKey, 3));
    }
  });
}

// The rows of a model's sessions lie behind one another, wherever that is.
TEST(check_small_tensors_that_are_not_aligned) {
  auto random = check::random();
  for (Element element : kElements) {
    const Config config = {.element = element, .head_dim = 5};
    for (int skipped : {1, 2, 3, 7}) {
      Numbers numbers = draw(config, size_t(30 + skipped) * config.head_dim, random);
      numbers[0] = NAN;  // before the tensor
      for (int token : {0, 12, 29}) {
        Numbers with = numbers;
        with[size_t(token + skipped) * config.head_dim + 4] = INFINITY;
        const ElementArray array(element, with);
        const DeviceArray<Failure> failure(std::vector<Failure>{kNoFailure});
        Job job{};
        job.key = static_cast<const char*>(array.get()) + size_t(skipped) * config.head_dim * element_bytes(element);
        job.tokens = 30;
        job.failure = failure.get();
        const DeviceArray<Job> jobs(std::vector<Job>{job});
        CHECK_CUDA(launch_check(config.shape(), jobs.get(), 1, 30, nullptr));
        CHECK(failure.download()[0] == Failure(token) * 8 + kKey);
      }
    }
  }
}

TEST(check_skips_missing_inputs_of_small_calls) {
  auto random = check::random();
  CHECK(run_check({}, 9, {{kKey, 1}, {kValue, 2}}, NAN, random, true) == kNoFailure);
  CHECK(run_check({}, 9, {{kKey, 1}, {kQuery, 2}}, NAN, random, true) == at(kQuery, 2));
}

}  // namespace
}  // namespace infini::cuda

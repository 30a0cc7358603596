// The retrieve kernel through its launcher, against float64: every element and shape, a memory that is empty, and which
// calls fail, at which token.
#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "check.h"
#include "device_array.h"
#include "launch.h"
#include "published.h"
#include "reference.h"

namespace infini::cuda {
namespace {

using reference::Matrix;
using Random = std::mt19937_64;

struct Config {
  Element element = Element::Float32;
  int heads = 1, kv_heads = 1, head_dim = 16, value_dim = 16;
};

struct Call {
  int tokens;
  Matrix query;
  std::vector<reference::Memory> memory;  // [kv_heads]
  Matrix output;
  Failure failure = 0;
};

Matrix draw(const Config& config, size_t count, Random& random, double mean = 0) {
  Matrix numbers(count);
  for (double& x : numbers) x = rounded(config.element, std::normal_distribution<double>(mean, 1)(random));
  return numbers;
}

Call make_call(const Config& config, int tokens, bool absorbed, Random& random, double query = 0, double key = 0) {
  Call call{tokens, draw(config, size_t(tokens) * config.heads * config.head_dim, random, query), {}, {}};
  for (int head = 0; head < config.kv_heads; ++head) {
    call.memory.emplace_back(config.head_dim, config.value_dim);
    if (!absorbed) continue;
    reference::absorb(call.memory.back(), draw(config, size_t(20) * config.head_dim, random, key),
                      draw(config, size_t(20) * config.value_dim, random), false);
  }
  return call;
}

void run(const Config& config, std::vector<Call>& calls) {
  // The gates and the scale are not this kernel's: were they used, all would be NaN.
  const DeviceArray<float2> gates(static_cast<size_t>(config.heads));
  const Shape shape = {config.element, false, false, config.heads, config.kv_heads, config.head_dim, config.value_dim,
                       7, NAN, gates.get(), nullptr};
  const DeviceArray<Failure> failures(std::vector<Failure>(calls.size(), kNoFailure));
  std::vector<ElementArray> queries, outputs;
  std::vector<reference::Memory> memories;
  std::vector<Job> jobs;
  std::vector<QueryTile> tiles;
  for (size_t i = 0; i < calls.size(); ++i) {
    const Call& call = calls[i];
    queries.emplace_back(config.element, call.query);
    outputs.emplace_back(config.element, size_t(call.tokens) * config.heads * config.value_dim);
    Job job{};
    job.query = queries.back().get();
    job.output = outputs.back().get();
    job.failure = failures.get() + i;
    job.first_token = 1000 * (long long)i;
    job.tokens = call.tokens;
    job.open = 3;
    job.absorbed = call.memory[0].absorbed;
    job.pieces = 1;
    job.first_piece = int(i);
    jobs.push_back(job);
    memories.insert(memories.end(), call.memory.begin(), call.memory.end());
    for (int tile = 0; tile * retrieve_tile_rows(shape) < call.tokens; ++tile) tiles.push_back({int(i), 0, tile});
  }
  const DeviceArray<Job> device_jobs(jobs);
  const DeviceArray<QueryTile> device_tiles(tiles);
  const Published published(config.element, memories);
  CHECK_CUDA(launch_retrieve(shape, device_jobs.get(), device_tiles.get(), int(tiles.size()), published.workspace(),
                             nullptr));
  const std::vector<Failure> noted = failures.download();
  for (size_t i = 0; i < calls.size(); ++i) {
    calls[i].output = outputs[i].download();
    calls[i].failure = noted[i];
  }
}

void run_and_compare(const Config& config, std::vector<Call> calls) {
  run(config, calls);
  for (const Call& call : calls) {
    CHECK(call.failure == kNoFailure);
    for (int head = 0; head < config.heads; ++head) {
      const Matrix query = reference::head_of(call.query, config.heads, config.head_dim, head, 0, call.tokens);
      const Matrix expected = reference::retrieve(call.memory[size_t(head / (config.heads / config.kv_heads))], query);
      const Matrix actual = reference::head_of(call.output, config.heads, config.value_dim, head, 0, call.tokens);
      CHECK_ERROR(check::relative_error(actual, expected), output_bound(config.element));
    }
  }
}

constexpr Element kElements[] = {Element::Float32, Element::BFloat16, Element::Float16};

TEST(retrieve_small) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : kElements) {
      const Config config{.element = element, .heads = 4, .kv_heads = 2};
      run_and_compare(config, {make_call(config, 5, true, random), make_call(config, 1, false, random)});
    }
  });
}

TEST(retrieve_dims) {
  check::each_schedule([] {
    Random random = check::random();
    const int dims[][2] = {{1, 1}, {7, 16}, {17, 33}, {33, 64}, {65, 100}, {128, 128}, {40, 256}, {256, 40},
                           {256, 256}};
    for (Element element : kElements) {
      for (const auto& [head_dim, value_dim] : dims) {
        const Config config{.element = element, .head_dim = head_dim, .value_dim = value_dim};
        run_and_compare(config, {make_call(config, 20 + int(random() % 30), true, random)});
      }
    }
  });
}

TEST(retrieve_tiles) {
  Random random = check::random();
  for (Element element : kElements) {
    const Config config{.element = element, .heads = 3, .kv_heads = 1, .head_dim = 24, .value_dim = 8};
    run_and_compare(config, {make_call(config, 300, true, random), make_call(config, 128, true, random)});
  }
}

TEST(retrieve_alone_as_together) {
  Random random = check::random();
  for (Element element : kElements) {
    const Config config{.element = element, .heads = 2, .kv_heads = 1, .head_dim = 48, .value_dim = 20};
    std::vector<Call> together = {make_call(config, 70, true, random), make_call(config, 3, false, random),
                                  make_call(config, 40, true, random)};
    run(config, together);
    for (const Call& call : together) {
      std::vector<Call> alone = {call};
      run(config, alone);
      CHECK(alone[0].output == call.output);
    }
  }
}

TEST(retrieve_small_sigmas) {
  Random random = check::random();
  for (Element element : kElements) {
    for (double key : {-40.0, -60.0, -80.0}) {
      for (double query : {0.0, -60.0, -80.0}) {
        const Config config{.element = element, .head_dim = 40, .value_dim = 24};
        run_and_compare(config, {make_call(config, 30, true, random, query, key)});
      }
    }
  }
}

TEST(retrieve_flags_what_is_not_finite) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : kElements) {
      const Config config{.element = element, .heads = 2, .kv_heads = 1, .head_dim = 18, .value_dim = 10};
      for (double bad : {double(NAN), double(INFINITY), -double(INFINITY)}) {
        for (bool absorbed : {false, true}) {
          std::vector<Call> calls = {make_call(config, 9, absorbed, random), make_call(config, 70, absorbed, random)};
          const size_t token = random() % 70;
          calls[1].query[token * 36 + random() % 36] = bad;
          run(config, calls);
          CHECK(calls[0].failure == kNoFailure);
          CHECK(calls[1].failure == Failure(1000 + token) * 8 + kOutput);
        }
      }
    }
  });
}

TEST(retrieve_flags_outputs_beyond_the_range) {
  Random random = check::random();
  for (Element element : kElements) {
    const double most = element == Element::Float16 ? 65504 : 3.3e38;
    const Config config{.element = element, .head_dim = 8, .value_dim = 8};
    std::vector<Call> calls = {make_call(config, 90, true, random)};
    // The memory reads four times what the type holds, but for rows that meet nothing.
    for (double& x : calls[0].memory[0].matrix) x = most / 8;
    for (double& z : calls[0].memory[0].normalizer) z = 1.0 / 32;
    for (int i = 0; i < 55 * 8; ++i) calls[0].query[size_t(i)] = -1000;
    run(config, calls);
    CHECK(calls[0].failure == 55 * 8 + kOutput);
  }
}

}  // namespace
}  // namespace infini::cuda

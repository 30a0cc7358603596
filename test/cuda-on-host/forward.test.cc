// The forward kernel through its launcher, against float64: every element, shape and position within segments; what the
// memory before a piece adds; which calls fail, and at which token.
//
// A Call is what one stream brings to a launch: its open segment, its tokens, and a memory of its own before each
// piece, made by absorbing a few random tokens. Outputs, unused rows of the cache and unused parts of the workspace are NaN.
#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "core/segments.h"
#include "device_array.h"
#include "launch.h"
#include "published.h"
#include "reference.h"
#include "tiles.h"

namespace infini::cuda {
namespace {

using reference::Matrix;
using Random = std::mt19937_64;
using Draw = std::function<double(Random&)>;

Draw normal(double mean = 0, double deviation = 1) {
  return [=](Random& random) { return std::normal_distribution<double>(mean, deviation)(random); };
}

struct Config {
  Element element = Element::Float32;
  int heads = 1, kv_heads = 1, head_dim = 16, value_dim = 16, segment_length = 64;
  double scale = 0;  // 0: 1 / sqrt(head_dim)
  double theta = 0;  // of rope; 0: none
  bool local_when_empty = false;

  double logit_scale() const { return float(scale > 0 ? scale : 1 / std::sqrt(double(head_dim))); }
};

struct Call {
  int open = 0, tokens = 1;
  bool absorbed = false;
  Matrix query, key, value;           // of the call's tokens
  Matrix cached_key, cached_value;    // [kv_heads][segment_length][dim]: NaN from `open` on
  std::vector<reference::Memory> memory;  // [pieces][kv_heads]
  Matrix output;
  Failure failure = 0;
  double most_logit = 0;
};

struct Draws {
  Draw query = normal(), key = normal(), value = normal();
  Draw absorbed_key = normal();
  int absorbed_tokens = 20;
};

Call make_call(const Config& config, int open, int tokens, bool absorbed, Random& random, const Draws& draws = {}) {
  const auto fill = [&](size_t count, const Draw& draw) {
    Matrix numbers(count);
    for (double& x : numbers) x = rounded(config.element, draw(random));
    return numbers;
  };
  Call call;
  call.open = open;
  call.tokens = tokens;
  call.absorbed = absorbed;
  call.query = fill(size_t(tokens) * config.heads * config.head_dim, draws.query);
  call.key = fill(size_t(tokens) * config.kv_heads * config.head_dim, draws.key);
  call.value = fill(size_t(tokens) * config.kv_heads * config.value_dim, draws.value);
  const auto cache = [&](int dim, const Draw& draw) {
    Matrix rows = fill(size_t(config.kv_heads) * config.segment_length * dim, draw);
    for (size_t i = 0; i < rows.size(); ++i) {
      if (int(i / size_t(dim)) % config.segment_length >= open) rows[i] = NAN;
    }
    return rows;
  };
  call.cached_key = cache(config.head_dim, draws.key);
  call.cached_value = cache(config.value_dim, draws.value);
  const int64_t pieces = Pieces(open, tokens, config.segment_length).size();
  for (int64_t i = 0; i < pieces * config.kv_heads; ++i) {
    call.memory.emplace_back(config.head_dim, config.value_dim);
    if (i < config.kv_heads && !absorbed) continue;
    reference::absorb(call.memory.back(), fill(size_t(draws.absorbed_tokens) * config.head_dim, draws.absorbed_key),
                      fill(size_t(draws.absorbed_tokens) * config.value_dim, draws.value), false);
  }
  return call;
}

double gate_of(int head) { return 1 / (1 + std::exp(0.7 - 0.5 * head)); }

// The reference's outputs [tokens][heads][value_dim].
Matrix expected(const Config& config, Call& call) {
  Matrix result(size_t(call.tokens) * config.heads * config.value_dim);
  const Pieces pieces(call.open, call.tokens, config.segment_length);
  for (int head = 0; head < config.heads; ++head) {
    const int kv = head / (config.heads / config.kv_heads);
    for (int64_t i = 0; i < pieces.size(); ++i) {
      const Piece piece = pieces[i];
      const auto rows = [&](const Matrix& tensor, int heads, int dim, int of) {
        return reference::head_of(tensor, heads, dim, of, int(piece.token), int(piece.count));
      };
      const auto segment = [&](const Matrix& cache, const Matrix& tensor, int dim) {
        const auto from = cache.begin() + long(kv) * config.segment_length * dim;
        Matrix all(from, from + piece.start * dim);
        const Matrix fresh = rows(tensor, config.kv_heads, dim, kv);
        all.insert(all.end(), fresh.begin(), fresh.end());
        return all;
      };
      const Matrix query = rows(call.query, config.heads, config.head_dim, head);
      const auto attention = reference::attend(query, segment(call.cached_key, call.key, config.head_dim),
                                               segment(call.cached_value, call.value, config.value_dim),
                                               config.head_dim, config.value_dim, config.logit_scale(), config.theta);
      call.most_logit = std::max(call.most_logit, attention.most_logit);
      const reference::Memory& memory = call.memory[size_t(i * config.kv_heads + kv)];
      const Matrix read = reference::retrieve(memory, query);
      const double gate = gate_of(head), local = !memory.absorbed && config.local_when_empty ? 1 : 1 - gate;
      for (size_t at = 0; at < read.size(); ++at) {
        const size_t token = size_t(piece.token) + at / config.value_dim;
        result[(token * config.heads + head) * config.value_dim + at % config.value_dim] =
            local * attention.output[at] + gate * read[at];
      }
    }
  }
  return result;
}

// Runs all calls in one launch; fills in their outputs and failures.
void run(const Config& config, std::vector<Call>& calls, Random& random) {
  std::vector<float2> gates, turns;
  for (int head = 0; head < config.heads; ++head) gates.push_back({float(gate_of(head)), float(1 - gate_of(head))});
  for (int p = 0; p < config.segment_length && config.theta > 0; ++p) {
    for (int i = 0; i < config.head_dim / 2; ++i) {
      const double angle = p * std::pow(config.theta, -2.0 * i / config.head_dim);
      turns.push_back({float(std::cos(angle)), float(std::sin(angle))});
    }
  }
  const DeviceArray<float2> gate(gates), rotary(turns);
  const Shape shape = {config.element, false, config.local_when_empty, config.heads, config.kv_heads, config.head_dim,
                       config.value_dim, config.segment_length, float(config.logit_scale()), gate.get(), rotary.get()};

  std::vector<ElementArray> arrays;
  const auto upload = [&](const Matrix& values) {
    arrays.emplace_back(config.element, values);
    return arrays.back().get();
  };
  std::vector<ElementArray> outputs;
  std::vector<Job> jobs;
  std::vector<QueryTile> tiles;
  const DeviceArray<Failure> failures(std::vector<Failure>(calls.size(), kNoFailure));
  int piece_count = 0;
  for (size_t i = 0; i < calls.size(); ++i) {
    const Call& call = calls[i];
    outputs.emplace_back(config.element, size_t(call.tokens) * config.heads * config.value_dim);
    const Pieces pieces(call.open, call.tokens, config.segment_length);
    Job job{};
    job.query = upload(call.query);
    job.key = upload(call.key);
    job.value = upload(call.value);
    job.output = outputs.back().get();
    job.cached_keys = upload(call.cached_key);
    job.cached_values = upload(call.cached_value);
    job.failure = failures.get() + i;
    job.first_token = 1000 * (long long)i;
    job.tokens = call.tokens;
    job.open = call.open;
    job.absorbed = call.absorbed;
    job.borders = int(pieces.completed());
    job.pieces = int(pieces.size());
    job.first_piece = piece_count;
    piece_count += job.pieces;
    jobs.push_back(job);
    for (int piece = 0; piece < job.pieces; ++piece) {
      const int count = int(pieces[piece].count), rows = forward_tile_rows(shape);
      for (int tile = 0; tile * rows < count; ++tile) tiles.push_back({int(i), piece, tile});
    }
  }
  std::shuffle(tiles.begin(), tiles.end(), random);
  const DeviceArray<Job> device_jobs(jobs);
  const DeviceArray<QueryTile> device_tiles(tiles);
  std::vector<reference::Memory> memories;
  for (const Call& call : calls) memories.insert(memories.end(), call.memory.begin(), call.memory.end());
  const Published published(config.element, memories);
  CHECK_CUDA(launch_forward(shape, device_jobs.get(), device_tiles.get(), int(tiles.size()), published.workspace(),
                            nullptr));
  CHECK_CUDA(cudaDeviceSynchronize());
  const std::vector<Failure> noted = failures.download();
  for (size_t i = 0; i < calls.size(); ++i) {
    calls[i].output = outputs[i].download();
    calls[i].failure = noted[i];
  }
}

std::string name_of(const Config& config, const Call& call) {
  static const char* const elements[] = {"float32", "bfloat16", "float16"};
  const auto text = [](int x) { return std::to_string(x); };
  return std::string(elements[int(config.element)]) + " " + text(config.heads) + "/" + text(config.kv_heads) + " x " +
         text(config.head_dim) + " x " + text(config.value_dim) + ", N = " + text(config.segment_length) + ", " +
         text(call.tokens) + " tokens at " + text(call.open) + (call.absorbed ? ", absorbed" : "") +
         (config.theta > 0 ? ", rope" : "");
}

// Compares each head's outputs over the whole call.
void compare(const Config& config, Call& call, double tolerance) {
  const Matrix wanted = expected(config, call);
  if (call.failure != kNoFailure) {
    throw check::Failure(name_of(config, call) + ": failed at " + std::to_string(call.failure));
  }
  for (int head = 0; head < config.heads; ++head) {
    const auto of = [&](const Matrix& all) {
      return reference::head_of(all, config.heads, config.value_dim, head, 0, call.tokens);
    };
    const double error = check::relative_error(of(call.output), of(wanted));
    if (!(error <= tolerance)) {
      throw check::Failure(name_of(config, call) + ", head " + std::to_string(head) + ": error " +
                           std::to_string(error * 1e6) + "e-6, " + std::to_string(tolerance * 1e6) + "e-6 allowed");
    }
  }
}

void run_and_compare(const Config& config, std::vector<Call> calls, Random& random) {
  run(config, calls, random);
  for (Call& call : calls) compare(config, call, output_bound(config.element));
}

constexpr Element kElements[] = {Element::Float32, Element::BFloat16, Element::Float16};

// ---- shapes

TEST(forward_small) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : kElements) {
      Config config{.element = element, .heads = 2, .kv_heads = 1, .segment_length = 16};
      run_and_compare(config, {make_call(config, 0, 5, false, random), make_call(config, 3, 20, true, random)}, random);
    }
  });
}

TEST(forward_dims) {
  check::each_schedule([] {
    Random random = check::random();
    const int dims[][2] = {{1, 1}, {7, 16}, {16, 7}, {17, 33}, {33, 64}, {64, 17}, {65, 100}, {100, 1}, {128, 128},
                           {40, 256}, {256, 40}, {129, 65}};
    for (Element element : kElements) {
      for (const auto& [head_dim, value_dim] : dims) {
        Config config{.element = element, .head_dim = head_dim, .value_dim = value_dim, .segment_length = 37};
        run_and_compare(config, {make_call(config, 11, 40, true, random)}, random);
      }
    }
  });
}

TEST(forward_lengths) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : kElements) {
      for (int length : {1, 2, 5, 16, 63, 64, 65, 100, 128, 200}) {
        Config config{.element = element, .heads = 2, .kv_heads = 2, .head_dim = 24, .value_dim = 8,
                      .segment_length = length};
        const int open = int(random() % uint64_t(length));
        run_and_compare(config, {make_call(config, 0, length + length / 2 + 1, false, random),
                                 make_call(config, open, 2 * length, true, random)}, random);
      }
    }
  });
}

// Rows meet the tiles of keys at every place of the diagonal.
TEST(forward_starts) {
  Random random = check::random();
  for (Element element : kElements) {
    for (const auto& [dim, bucket] : {std::pair(16, 64), std::pair(200, 256)}) {
      Config config{.element = element, .head_dim = dim, .value_dim = 8, .segment_length = 140};
      const int keys = forward_tile(bucket, element == Element::Float32 ? 4 : 2).keys;
      std::vector<Call> calls;
      for (int open = 0; open < keys; ++open) calls.push_back(make_call(config, open, keys + 2, false, random));
      run_and_compare(config, calls, random);
    }
  }
}

TEST(forward_long_segments) {
  Random random = check::random();
  for (Element element : kElements) {
    Config config{.element = element, .head_dim = 64, .value_dim = 64, .segment_length = 1100};
    run_and_compare(config, {make_call(config, 700, 500, true, random)}, random);
    config.segment_length = 513;
    config.head_dim = config.value_dim = 128;
    run_and_compare(config, {make_call(config, 0, 513, true, random)}, random);
  }
}

TEST(forward_groups) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : kElements) {
      for (int group : {1, 2, 4, 8}) {
        Config config{.element = element, .heads = 2 * group, .kv_heads = 2, .head_dim = 32, .value_dim = 24,
                      .segment_length = 50};
        run_and_compare(config, {make_call(config, 7, 60, true, random)}, random);
      }
    }
  });
}

TEST(forward_rope) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : kElements) {
      for (int head_dim : {2, 6, 16, 34, 64, 128, 256}) {
        Config config{.element = element, .heads = 2, .kv_heads = 1, .head_dim = head_dim, .value_dim = 16,
                      .segment_length = 90, .theta = 10000};
        run_and_compare(config, {make_call(config, 70, 100, true, random)}, random);
      }
    }
  });
}

TEST(forward_random_calls) {
  check::each_schedule([] {
    Random random = check::random();
    const auto upto = [&](int most) { return 1 + int(random() % uint64_t(most)); };
    for (int round = 0; round < 12; ++round) {
      Config config{.element = kElements[round % 3], .kv_heads = upto(2), .head_dim = 2 * upto(48),
                    .value_dim = upto(96), .segment_length = upto(150)};
      config.heads = config.kv_heads * upto(3);
      config.local_when_empty = random() % 2;
      config.theta = random() % 2 ? 500 : 0;
      std::vector<Call> calls;
      for (int i = upto(4); i > 0; --i) {
        calls.push_back(make_call(config, upto(config.segment_length) - 1, upto(200), random() % 2, random));
      }
      run_and_compare(config, calls, random);
    }
  });
}

// ---- the same whatever else is launched

TEST(forward_alone_as_together) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : kElements) {
      Config config{.element = element, .heads = 2, .kv_heads = 1, .head_dim = 64, .value_dim = 40,
                    .segment_length = 96};
      std::vector<Call> together = {make_call(config, 0, 130, false, random), make_call(config, 60, 30, true, random),
                                    make_call(config, 95, 1, true, random)};
      run(config, together, random);
      for (const Call& call : together) {
        std::vector<Call> alone = {call};
        run(config, alone, random);
        CHECK(alone[0].output == call.output);
      }
    }
  });
}

// ---- extremes

TEST(forward_large_logits) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : kElements) {
      for (double sign : {1.0, -1.0}) {
        // |q_i k_i| such that 16 of them, times the scale, are 1000.
        const double size = std::sqrt(1000 / 4.0);
        Config config{.element = element, .local_when_empty = true};
        std::vector<Call> calls = {make_call(config, 0, 100, false, random,
                                             {.query = normal(size, 0.003), .key = normal(sign * size, 0.003)})};
        run(config, calls, random);
        // float32 sums of 1000 are exact to 3e-5, times 3 for 3xTF32: that is what the weights may err by.
        compare(config, calls[0], std::max(output_bound(element), 2e-3));
        CHECK(calls[0].most_logit > 900);
      }
    }
  });
}

// Every tile of keys outweighs all before it.
TEST(forward_rising_logits) {
  Random random = check::random();
  for (Element element : kElements) {
    Config config{.element = element, .head_dim = 32, .value_dim = 40, .segment_length = 300};
    std::vector<Call> calls = {make_call(config, 20, 280, false, random, {.query = normal(1, 0.1)})};
    Call& call = calls[0];
    // 0.3 times sqrt(32) more with every key.
    for (size_t i = 0; i < call.key.size(); ++i) {
      call.key[i] = rounded(element, 0.3 / std::sqrt(32.0) * double(20 + i / 32) + 0.1 * call.key[i]);
    }
    run(config, calls, random);
    compare(config, call, output_bound(element) * 3);
    CHECK(call.most_logit > 60 && call.most_logit < 110);
  }
}

// q k^T is beyond float32, the logits are not: each row takes the value of its largest.
TEST(forward_products_beyond_the_range) {
  Random random = check::random();
  for (Element element : {Element::Float32, Element::BFloat16}) {
    Config config{.element = element, .head_dim = 4, .value_dim = 8, .scale = 0x1p-20, .local_when_empty = true};
    const Draw large = [](Random& random) {
      return (random() % 2 ? 1 : -1) * std::ldexp(1.0 + double(random() % 8) / 8, 68);
    };
    std::vector<Call> calls = {make_call(config, 0, 64, false, random, {.query = large, .key = large})};
    run(config, calls, random);
    compare(config, calls[0], output_bound(element));
    CHECK(calls[0].most_logit > 0x1p110);
  }
}

TEST(forward_large_values) {
  Random random = check::random();
  for (Element element : kElements) {
    const double most = element == Element::Float16 ? 65504 : 3e38;
    Config config{.element = element, .head_dim = 8, .value_dim = 8, .segment_length = 300, .local_when_empty = true};
    run_and_compare(config, {make_call(config, 0, 300, false, random, {.value = normal(most, 0)})}, random);
    const double spread = element == Element::Float16 ? 1e4 : 1e30;
    run_and_compare(config, {make_call(config, 0, 300, true, random, {.value = normal(0, spread)})}, random);
  }
}

// Memories that were written under keys far below 0, read by queries near and far.
TEST(forward_small_sigmas) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : kElements) {
      for (double key : {-40.0, -60.0, -80.0}) {
        for (double query : {0.0, -60.0, -80.0}) {
          Config config{.element = element, .head_dim = 40, .value_dim = 24};
          const Draws draws = {.query = normal(query, 1), .value = normal(1, 1), .absorbed_key = normal(key, 1)};
          run_and_compare(config, {make_call(config, 0, 30, true, random, draws)}, random);
        }
      }
    }
  });
}

// Each column of q meets a z of its own size: what counts is sigma z, not sigma.
TEST(forward_lopsided_normalizers) {
  Random random = check::random();
  for (Element element : kElements) {
    Config config{.element = element, .head_dim = 32, .value_dim = 16};
    Call call = make_call(config, 0, 40, true, random);
    for (int i = 0; i < config.head_dim; ++i) {
      const double size = std::exp(i % 2 ? 3.0 * double(random() % 10) : -4.0 * double(random() % 10));
      call.memory[0].normalizer[size_t(i)] *= size;
      for (int j = 0; j < config.value_dim; ++j) call.memory[0].matrix[size_t(i) * config.value_dim + j] *= size;
    }
    for (size_t i = 0; i < call.query.size(); ++i) {
      if (i % 2) call.query[i] = rounded(element, call.query[i] - 20);
    }
    run_and_compare(config, {call}, random);
  }
}

// Where nothing was stored the memory reads 0, even if sigma of other columns is large.
TEST(forward_columns_that_hold_nothing) {
  Random random = check::random();
  for (Element element : kElements) {
    Config config{.element = element, .head_dim = 20, .value_dim = 16};
    Call call = make_call(config, 0, 40, true, random);
    for (int i = 0; i < config.head_dim; ++i) {
      if (i % 4 == 0) continue;
      call.memory[0].normalizer[size_t(i)] = 0;
      for (int j = 0; j < config.value_dim; ++j) call.memory[0].matrix[size_t(i) * config.value_dim + j] = 0;
    }
    for (int token = 0; token < call.tokens; ++token) {
      for (int i = 0; i < config.head_dim; ++i) {
        double& x = call.query[size_t(token) * config.head_dim + i];
        if (i % 4 == 0 && token % 2) x = -100;  // this row meets nothing at all
        if (i % 4 != 0) x = 50;
      }
    }
    run_and_compare(config, {call}, random);
  }
}

// ---- failures

TEST(forward_flags_what_is_not_finite) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : kElements) {
      for (double bad : {double(NAN), double(INFINITY), -double(INFINITY)}) {
        for (bool absorbed : {false, true}) {
          Config config{.element = element, .heads = 2, .kv_heads = 1, .head_dim = 18, .value_dim = 10,
                        .segment_length = 40};
          const int token = int(random() % 70);
          const Call good = make_call(config, 13, 70, absorbed, random);
          const auto place = [&](Matrix Call::*tensor) {
            std::vector<Call> calls = {good, good};
            Matrix& numbers = calls[1].*tensor;
            const size_t width = numbers.size() / 70;
            numbers[size_t(token) * width + random() % width] = bad;
            run(config, calls, random);
            CHECK(calls[0].failure == kNoFailure);
            return calls[1].failure;
          };
          CHECK(place(&Call::query) == Failure(1000 + token) * 8 + kOutput);
          CHECK(place(&Call::key) == Failure(1000 + token) * 8 + kOutput);
          // Earlier rows may meet it with weight 0: the host's search among the inputs names the token then.
          CHECK(place(&Call::value) <= Failure(1000 + token) * 8 + kOutput);
        }
      }
    }
  });
}

TEST(forward_flags_logits_beyond_the_range) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : {Element::Float32, Element::BFloat16}) {
      for (double sign : {1.0, -1.0}) {
        Config config{.element = element, .head_dim = 3, .value_dim = 4, .segment_length = 100, .scale = 1};
        const auto failure = [&](int query, int key) {
          std::vector<Call> calls = {make_call(config, 0, 90, false, random)};
          calls[0].query[size_t(query) * 3] = rounded(element, 1e20);
          calls[0].key[size_t(key) * 3] = rounded(element, sign * 1e20);
          run(config, calls, random);
          return calls[0].failure;
        };
        CHECK(failure(71, 4) == 71 * 8 + kOutput);
        CHECK(failure(71, 71) == 71 * 8 + kOutput);
        CHECK(failure(70, 71) == kNoFailure);  // a logit that is not formed
      }
    }
  });
}

TEST(forward_flags_outputs_beyond_the_range) {
  Random random = check::random();
  for (Element element : kElements) {
    const double most = element == Element::Float16 ? 65504 : 3.3e38;
    Config config{.element = element, .head_dim = 8, .value_dim = 8, .segment_length = 100};
    std::vector<Call> calls = {make_call(config, 0, 90, true, random)};
    // The memory reads twice what the type holds, but for rows that meet nothing.
    for (double& x : calls[0].memory[0].matrix) x = most / 8;
    for (double& z : calls[0].memory[0].normalizer) z = 1.0 / 32;
    for (int i = 0; i < 55 * 8; ++i) calls[0].query[size_t(i)] = -1000;
    run(config, calls, random);
    CHECK(calls[0].failure == 55 * 8 + kOutput);
  }
}

#ifdef INFINI_EMULATION
}  // namespace
}  // namespace infini::cuda

#include "emulation/settings.h"

namespace infini::cuda {
namespace {

TEST(forward_reads_shared_memory_without_bank_conflicts) {
  Random random = check::random();
  for (Element element : kElements) {
    for (int dim : {64, 128, 256}) {
      Config config{.element = element, .head_dim = dim, .value_dim = dim, .segment_length = 128, .theta = 10000};
      std::vector<Call> calls = {make_call(config, 0, 128, true, random)};
      const auto before = emulation::statistics();
      run(config, calls, random);
      const auto after = emulation::statistics();
      CHECK(after.ldmatrix_phases > before.ldmatrix_phases);
      CHECK(after.ldmatrix_conflicts == before.ldmatrix_conflicts);
    }
  }
}
#endif

}  // namespace
}  // namespace infini::cuda

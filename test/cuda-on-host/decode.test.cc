// The decode kernel through its launcher, against float64: streams of every shape at every position, several in one
// launch; the cache it leaves behind; that neither company nor the order of blocks changes a bit; which calls fail.
//
// A Stream is what the host keeps of one stream. decode() launches once for some streams with a few tokens each.
// Outputs, rows of a cache behind the open segment and whatever of the scratch need not be zero are NaN before every
// launch.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "device_array.h"
#include "launch.h"
#include "reference.h"
#include "tiles.h"

#ifdef INFINI_EMULATION
#include "emulation/settings.h"
#endif

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

std::string name_of(const Config& config) {
  static const char* const elements[] = {"float32", "bfloat16", "float16"};
  return std::string(elements[int(config.element)]) + " " + std::to_string(config.heads) + "/" +
         std::to_string(config.kv_heads) + " x " + std::to_string(config.head_dim) + "/" +
         std::to_string(config.value_dim) + ", N = " + std::to_string(config.segment_length) + (config.theta > 0 ? ", rope" : "");
}

// The error that a head's outputs may have, relative to their norm.
double bound(Element element) {
  return element == Element::Float32 ? 1e-5 : element == Element::BFloat16 ? 5e-3 : 1e-3;
}

double gate_of(int head) { return 1 / (1 + std::exp(0.7 - 0.5 * (head % 5))); }

// Values have a mean: of one token and few columns the outputs could cancel to anything, and no relative error would
// mean much.
struct Draws {
  Draw query = normal(), key = normal(), value = normal(1, 1);
  Draw absorbed_key = normal();
};

struct Stream {
  int open = 0;
  bool absorbed = false;
  Matrix keys, values;  // [kv_heads][segment_length][dim]: NaN from `open` on
  std::vector<reference::Memory> memory;
  ElementArray cached_keys, cached_values;
  DeviceArray<float> matrix;
  DeviceArray<double> normalizer;
};

Matrix fill(const Config& config, size_t count, const Draw& draw, Random& random) {
  Matrix numbers(count);
  for (double& x : numbers) x = rounded(config.element, draw(random));
  return numbers;
}

Stream make_stream(const Config& config, int open, bool absorbed, Random& random, const Draws& draws = {}) {
  Stream stream;
  stream.open = open;
  stream.absorbed = absorbed;
  const auto cache = [&](int dim, const Draw& draw) {
    Matrix rows = fill(config, size_t(config.kv_heads) * config.segment_length * dim, draw, random);
    for (size_t i = 0; i < rows.size(); ++i) {
      if (int(i / size_t(dim)) % config.segment_length >= open) rows[i] = NAN;
    }
    return rows;
  };
  stream.keys = cache(config.head_dim, draws.key);
  stream.values = cache(config.value_dim, draws.value);
  stream.cached_keys = ElementArray(config.element, stream.keys);
  stream.cached_values = ElementArray(config.element, stream.values);
  std::vector<float> matrix;
  std::vector<double> normalizer;
  for (int head = 0; head < config.kv_heads; ++head) {
    reference::Memory memory(config.head_dim, config.value_dim);
    if (absorbed) {
      constexpr size_t kAbsorbed = 20;
      reference::absorb(memory, fill(config, kAbsorbed * size_t(config.head_dim), draws.absorbed_key, random),
                        fill(config, kAbsorbed * size_t(config.value_dim), draws.value, random), false);
    }
    for (double& x : memory.matrix) matrix.push_back(float(absorbed ? x = float(x) : NAN));
    for (double x : memory.normalizer) normalizer.push_back(absorbed ? x : NAN);
    stream.memory.push_back(memory);
  }
  stream.matrix = DeviceArray<float>(matrix);
  stream.normalizer = DeviceArray<double>(normalizer);
  return stream;
}

// The new tokens of a stream, and what comes of them.
struct Call {
  int tokens = 1;
  Matrix query, key, value;
  Matrix output;
  Failure failure = 0;
};

Call make_call(const Config& config, int tokens, Random& random, const Draws& draws = {}) {
  Call call;
  call.tokens = tokens;
  call.query = fill(config, size_t(tokens) * config.heads * config.head_dim, draws.query, random);
  call.key = fill(config, size_t(tokens) * config.kv_heads * config.head_dim, draws.key, random);
  call.value = fill(config, size_t(tokens) * config.kv_heads * config.value_dim, draws.value, random);
  return call;
}

// Zeroed once; whatever is not zero after a launch may be anything before the next one.
class Scratch {
 public:
  void* at_least(int64_t bytes) {
    const size_t words = size_t(bytes) / 4;
    std::vector<uint32_t> content = words_.download();
    for (uint32_t& word : content) word = word == 0 ? 0 : 0x7fc00000u + word % 1024;
    if (content.size() < words) {
      content.assign(words, 0);
      words_ = DeviceArray<uint32_t>(words);
    }
    words_.upload(content);
    return words_.get();
  }

 private:
  DeviceArray<uint32_t> words_;
};

// One launch; call i belongs to stream i and is the job's token 1000 i and after.
void decode(const Config& config, const std::vector<Stream*>& streams, const std::vector<Call*>& calls,
            Scratch& scratch, int most_tokens = kDecodeTokens) {
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

  std::vector<ElementArray> inputs, outputs;
  const auto upload = [&](const Matrix& values) {
    inputs.emplace_back(config.element, values);
    return inputs.back().get();
  };
  const DeviceArray<Failure> failures(std::vector<Failure>(calls.size(), kNoFailure));
  std::vector<Job> jobs;
  for (size_t i = 0; i < calls.size(); ++i) {
    const Stream& stream = *streams[i];
    const Call& call = *calls[i];
    outputs.emplace_back(config.element, size_t(call.tokens) * config.heads * config.value_dim);
    Job job{};
    job.query = upload(call.query);
    job.key = upload(call.key);
    job.value = upload(call.value);
    job.output = outputs.back().get();
    job.cached_keys = stream.cached_keys.get();
    job.cached_values = stream.cached_values.get();
    job.matrix = stream.matrix.get();
    job.normalizer = stream.normalizer.get();
    job.failure = failures.get() + i;
    job.first_token = 1000 * (long long)i;
    job.tokens = call.tokens;
    job.open = stream.open;
    job.absorbed = stream.absorbed;
    job.pieces = 1;
    jobs.push_back(job);
  }
  const DeviceArray<Job> device_jobs(jobs);
  const int count = int(jobs.size());
  void* memory = scratch.at_least(decode_scratch_bytes(shape, count, most_tokens));
  CHECK_CUDA(launch_decode(shape, device_jobs.get(), count, memory, nullptr, most_tokens));
  const std::vector<Failure> failed = failures.download();
  for (size_t i = 0; i < calls.size(); ++i) {
    calls[i]->output = outputs[i].download();
    calls[i]->failure = failed[i];
  }
}

// What the host does once the call has succeeded. The rows are written to the stream's host side alone.
void commit(const Config& config, Stream& stream, const Call& call) {
  const auto append = [&](Matrix& cache, const Matrix& rows, int dim) {
    for (int t = 0; t < call.tokens; ++t) {
      for (int head = 0; head < config.kv_heads; ++head) {
        const double* from = &rows[(size_t(t) * config.kv_heads + head) * dim];
        std::copy(from, from + dim, &cache[(size_t(head) * config.segment_length + stream.open + t) * dim]);
      }
    }
  };
  append(stream.keys, call.key, config.head_dim);
  append(stream.values, call.value, config.value_dim);
  stream.open += call.tokens;
}

bool same(const Matrix& a, const Matrix& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](double x, double y) {
           return std::memcmp(&x, &y, sizeof x) == 0 || (std::isnan(x) && std::isnan(y));
         });
}

// After a successful call, committed: its outputs, and that the cache holds the new rows and nothing else that is new.
void verify(const Config& config, const Stream& stream, const Call& call, double tolerance = 0) {
  try {
    CHECK(call.failure == kNoFailure);
    for (int head = 0; head < config.heads; ++head) {
      const int kv = head / (config.heads / config.kv_heads);
      const auto segment = [&](const Matrix& cache, int dim) {
        const auto from = cache.begin() + long(kv) * config.segment_length * dim;
        return Matrix(from, from + stream.open * dim);
      };
      const Matrix query = reference::head_of(call.query, config.heads, config.head_dim, head, 0, call.tokens);
      const auto attention =
          reference::attend(query, segment(stream.keys, config.head_dim), segment(stream.values, config.value_dim),
                            config.head_dim, config.value_dim, config.logit_scale(), config.theta);
      const Matrix read = reference::retrieve(stream.memory[size_t(kv)], query);
      const double gate = gate_of(head), local = !stream.absorbed && config.local_when_empty ? 1 : 1 - gate;
      Matrix expected(read.size());
      for (size_t i = 0; i < read.size(); ++i) expected[i] = local * attention.output[i] + gate * read[i];
      const Matrix actual = reference::head_of(call.output, config.heads, config.value_dim, head, 0, call.tokens);
      CHECK_ERROR(check::relative_error(actual, expected), tolerance > 0 ? tolerance : bound(config.element));
    }
    CHECK(same(stream.cached_keys.download(), stream.keys));
    CHECK(same(stream.cached_values.download(), stream.values));
  } catch (const check::Failure& failure) {
    throw check::Failure(std::string(failure.what()) + " (" + name_of(config) + ", position " +
                         std::to_string(stream.open - call.tokens) + ", " + std::to_string(call.tokens) + " tokens" +
                         (stream.absorbed ? ", with a memory)" : ")"));
  }
}

struct Place {
  int open, tokens;
  bool absorbed;
};

// One launch for a stream at each place.
void check_places(const Config& config, const std::vector<Place>& places, Random& random, const Draws& draws = {},
                  double tolerance = 0) {
  std::vector<Stream> streams;
  std::vector<Call> calls;
  int most_tokens = 1;
  for (const Place& place : places) {
    streams.push_back(make_stream(config, place.open, place.absorbed, random, draws));
    calls.push_back(make_call(config, place.tokens, random, draws));
    most_tokens = std::max(most_tokens, place.tokens);
  }
  std::vector<Stream*> all_streams;
  std::vector<Call*> all_calls;
  for (size_t i = 0; i < places.size(); ++i) all_streams.push_back(&streams[i]), all_calls.push_back(&calls[i]);
  Scratch scratch;
  decode(config, all_streams, all_calls, scratch, most_tokens);
  for (size_t i = 0; i < places.size(); ++i) {
    commit(config, streams[i], calls[i]);
    verify(config, streams[i], calls[i], tolerance);
  }
}

constexpr Element kElements[] = {Element::Float32, Element::BFloat16, Element::Float16};

// ---- outputs

void check_dimensions(const std::vector<std::pair<int, int>>& dims) {
  auto random = check::random();
  check::each_schedule([&] {
    for (Element element : kElements) {
      for (const auto& [head_dim, value_dim] : dims) {
        Config config = {.element = element, .heads = 2, .kv_heads = 1, .head_dim = head_dim, .value_dim = value_dim,
                         .segment_length = 80};
        check_places(config, {{0, 1, false}, {40, 1, true}, {79, 1, true}}, random);
      }
    }
  });
}

TEST(decode_small_dimensions) { check_dimensions({{1, 1}, {7, 16}, {16, 7}, {8, 24}, {17, 33}, {33, 17}}); }

TEST(decode_large_dimensions) {
  check_dimensions({{64, 64}, {65, 100}, {100, 65}, {128, 64}, {64, 128}, {128, 128}, {129, 128}, {128, 129}, {256, 16},
                    {16, 256}, {200, 136}});
}

TEST(decode_widest) {
  auto random = check::random();
  for (Element element : kElements) {
    for (double theta : {0.0, 10000.0}) {
      for (int value_dim : {128, 144, 256}) {
        Config config = {.element = element, .heads = 2, .kv_heads = 1, .head_dim = 256, .value_dim = value_dim,
                         .segment_length = 150, .theta = theta};
        check_places(config, {{64, 2, true}, {145, 1, true}}, random);
      }
    }
  }
}

TEST(decode_groups_and_tokens) {
  auto random = check::random();
  check::each_schedule([&] {
    for (Element element : kElements) {
      for (int group : {1, 2, 3, 4, 8, 20}) {
        Config config = {.element = element, .heads = 2 * group, .kv_heads = 2, .head_dim = 32, .value_dim = 24,
                         .segment_length = 65};
        check_places(config, {{0, 4, false}, {61, 4, true}, {62, 2, true}, {30, 3, true}, {5, 1, false}}, random);
      }
    }
  });
}

TEST(decode_rope) {
  auto random = check::random();
  check::each_schedule([&] {
    for (Element element : kElements) {
      for (int dim : {2, 6, 10, 32, 34, 64, 128}) {
        for (int length : {5, 100}) {
          Config config = {.element = element, .heads = 4, .kv_heads = 2, .head_dim = dim, .value_dim = 16,
                           .segment_length = length, .theta = dim == 32 ? 7.0 : 10000.0};
          check_places(config, {{0, 1, false}, {length - 4, 4, true}, {length / 2, 2, true}}, random);
        }
      }
    }
  });
}

// Scores up to 30 and beyond, where rounded rotations would show.
TEST(decode_rope_of_large_scores) {
  auto random = check::random();
  for (Element element : kElements) {
    Config config = {.element = element, .heads = 2, .kv_heads = 2, .head_dim = 64, .value_dim = 16,
                     .segment_length = 200, .scale = 8 / std::sqrt(64.0), .theta = 10000};
    check_places(config, {{196, 4, false}, {63, 4, true}}, random);
  }
}

// Around the borders of steps and splits.
TEST(decode_splits) {
  auto random = check::random();
  for (Element element : kElements) {
    for (double theta : {0.0, 10000.0}) {
      for (int kv_heads : {1, 9}) {
        Config config = {.element = element, .heads = kv_heads, .kv_heads = kv_heads,
                         .head_dim = kv_heads == 1 ? 128 : 24,
                         .value_dim = kv_heads == 1 ? 128 : 40, .segment_length = 1100, .theta = theta};
        const Shape shape = {element, false, false, kv_heads, kv_heads, config.head_dim, config.value_dim, 1100, 1,
                             nullptr, nullptr};
        const DecodeTile tile = decode_tile(shape, kDecodeTokens);
        const int split = tile.keys * tile.steps;
        CHECK(tile.key_splits > 2);
        check_places(config, {{tile.keys - 1, 1, false}, {tile.keys - 2, 4, true}, {split - 1, 1, true},
                              {split - 3, 4, true}, {split, 1, false}, {2 * split - 1, 3, true}, {1099, 1, true}},
                                  random);
      }
    }
  }
}

// More steps than splits times the least steps of a split.
TEST(decode_long_segments) {
  auto random = check::random();
  for (double theta : {0.0, 10000.0}) {
    Config wide = {.element = Element::Float32, .heads = 8, .kv_heads = 8, .head_dim = 64, .value_dim = 64,
                   .segment_length = 2300, .theta = theta};
    check_places(wide, {{2299, 1, true}}, random);
    Config narrow = {.element = Element::BFloat16, .heads = 2, .kv_heads = 1, .head_dim = 6, .value_dim = 5,
                     .segment_length = 8300, .theta = theta};
    check_places(narrow, {{8296, 4, true}, {4000, 2, true}}, random);
  }
}

TEST(decode_every_position) {
  auto random = check::random();
  check::each_schedule([&] {
    for (Element element : kElements) {
      for (double theta : {0.0, 10000.0}) {
        Config config = {.element = element, .heads = 2, .kv_heads = 1, .head_dim = 8, .value_dim = 8,
                         .segment_length = 100, .theta = theta};
        Stream first = make_stream(config, 0, false, random), second = make_stream(config, 0, true, random);
        Scratch scratch;
        while (first.open < config.segment_length) {
          Call one = make_call(config, 1, random), other = make_call(config, 1, random);
          decode(config, {&second, &first}, {&other, &one}, scratch, 1);
          commit(config, first, one);
          commit(config, second, other);
          verify(config, first, one);
          verify(config, second, other);
        }
      }
    }
  });
}

TEST(decode_small_segments) {
  auto random = check::random();
  for (Element element : kElements) {
    for (int length : {1, 2, 5, 16}) {
      for (bool local : {false, true}) {
        Config config = {.element = element, .heads = 3, .kv_heads = 3, .head_dim = 16, .value_dim = 16,
                         .segment_length = length, .local_when_empty = local};
        const int tokens = std::min(length, kDecodeTokens);
        check_places(config, {{0, 1, false}, {0, 1, true}, {length - tokens, tokens, true}, {length - tokens, tokens,
                                                                                             false}},
                     random);
      }
    }
  }
}

// ---- extremes

TEST(decode_large_scores) {
  auto random = check::random();
  for (Element element : kElements) {
    Config config = {.element = element, .heads = 2, .kv_heads = 1, .head_dim = 16, .value_dim = 16,
                     .segment_length = 200};
    Draws draws;
    draws.query = draws.key = normal(0, 20);  // scores up to about +-1000, almost all weights are 0
    check_places(config, {{150, 2, true}, {0, 4, false}}, random, draws, element == Element::Float32 ? 5e-4 : 0);
  }
}

// q k is beyond float32, the score is not: its scale brings it back.
TEST(decode_products_beyond_float32) {
  auto random = check::random();
  for (Element element : {Element::Float32, Element::BFloat16}) {
    for (double theta : {0.0, 100.0}) {
      Config config = {.element = element, .heads = 1, .kv_heads = 1, .head_dim = 16, .value_dim = 16,
                       .segment_length = 64, .scale = 1e-38, .theta = theta};
      Draws draws;
      draws.query = normal(0, 1e30);
      draws.key = normal(0, 1e8);
      check_places(config, {{40, 2, false}}, random, draws);
    }
  }
}

// 700 values of one sign near the type's largest: their sum is far beyond it, their mean is not.
TEST(decode_largest_values) {
  auto random = check::random();
  for (Element element : kElements) {
    const double largest = element == Element::Float32 ? 3.4e38 : element == Element::BFloat16 ? 3.38e38 : 65504;
    Config config = {.element = element, .heads = 1, .kv_heads = 1, .head_dim = 16, .value_dim = 16,
                     .segment_length = 700};
    Draws draws;
    draws.value = [&](Random&) { return largest; };
    check_places(config, {{699, 1, false}}, random, draws);
  }
}

// Memories of keys far below zero: sigma and with it M and z are tiny, what they retrieve is not.
TEST(decode_faint_memories) {
  auto random = check::random();
  for (Element element : kElements) {
    for (double mean : {-40.0, -60.0, -80.0}) {
      Config config = {.element = element, .heads = 2, .kv_heads = 2, .head_dim = 20, .value_dim = 16,
                       .segment_length = 64};
      Draws draws;
      draws.absorbed_key = normal(mean, 1);
      check_places(config, {{10, 1, true}}, random, draws);
      draws.query = normal(mean, 1);
      check_places(config, {{10, 1, true}}, random, draws);
    }
  }
}

// Where nothing was stored, nothing is retrieved, and the queries there do not disturb what is elsewhere.
TEST(decode_where_nothing_was_stored) {
  auto random = check::random();
  for (Element element : kElements) {
    Config config = {.element = element, .heads = 1, .kv_heads = 1, .head_dim = 16, .value_dim = 16,
                     .segment_length = 64};
    Draws draws;
    int index = 0;
    draws.absorbed_key = [&](Random&) { return index++ % 16 < 8 ? 0.5 : -100.0; };
    draws.query = [&](Random&) { return index++ % 16 < 8 ? -30.0 : 1000.0; };
    draws.key = normal(0, 0.01);
    check_places(config, {{10, 1, true}}, random, draws);
    index = 0;
    draws.absorbed_key = [](Random&) { return -100.0; };
    check_places(config, {{10, 1, true}}, random, draws);
  }
}

// ---- company and order

TEST(decode_alone_and_in_a_batch) {
  auto random = check::random();
  for (Element element : kElements) {
    for (double theta : {0.0, 10000.0}) {
      Config config = {.element = element, .heads = 8, .kv_heads = 2, .head_dim = 40, .value_dim = 48,
                       .segment_length = 150, .theta = theta};
      const std::vector<Place> places = {{149, 1, true}, {0, 1, false}, {70, 4, true}, {64, 2, false}, {100, 1, true}};
      std::vector<Stream> streams;
      std::vector<Call> calls;
      for (const Place& place : places) {
        streams.push_back(make_stream(config, place.open, place.absorbed, random));
        calls.push_back(make_call(config, place.tokens, random));
      }
      Scratch scratch;
      std::vector<Matrix> alone;
      for (size_t i = 0; i < places.size(); ++i) {
        decode(config, {&streams[i]}, {&calls[i]}, scratch, calls[i].tokens);
        alone.push_back(calls[i].output);
      }
      std::vector<Stream*> all_streams;
      std::vector<Call*> all_calls;
      for (size_t i = places.size(); i-- > 0;) all_streams.push_back(&streams[i]), all_calls.push_back(&calls[i]);
      decode(config, all_streams, all_calls, scratch);
      for (size_t i = 0; i < places.size(); ++i) CHECK(same(calls[i].output, alone[i]));
    }
  }
}

TEST(decode_bit_for_bit_in_every_order) {
  auto random = check::random();
  for (Element element : kElements) {
    Config config = {.element = element, .heads = 4, .kv_heads = 2, .head_dim = 72, .value_dim = 40,
                     .segment_length = 300, .theta = element == Element::Float16 ? 10000.0 : 0.0};
    Stream first = make_stream(config, 297, true, random), second = make_stream(config, 130, true, random);
    Call one = make_call(config, 3, random), other = make_call(config, 1, random);
    Scratch scratch;
    std::vector<Matrix> outputs;
    check::each_schedule([&] {
      for (unsigned blocks : {1u, 3u}) {
#ifdef INFINI_EMULATION
        infini::emulation::settings.coresident = blocks;
#else
        (void)blocks;
#endif
        decode(config, {&first, &second}, {&one, &other}, scratch);
        outputs.push_back(one.output);
        outputs.push_back(other.output);
        CHECK(same(outputs[outputs.size() - 2], outputs[0]));
        CHECK(same(outputs.back(), outputs[1]));
      }
    });
    commit(config, first, one);
    verify(config, first, one);
  }
}

// One scratch for launches of all kinds.
TEST(decode_scratch_of_small_and_large) {
  auto random = check::random();
  Scratch scratch;
  const Config small = {.element = Element::Float16, .heads = 1, .kv_heads = 1, .head_dim = 8, .value_dim = 8,
                        .segment_length = 5};
  const Config large = {.element = Element::Float32, .heads = 6, .kv_heads = 3, .head_dim = 33, .value_dim = 70,
                        .segment_length = 400};
  for (int round = 0; round < 3; ++round) {
    for (const Config& config : {large, small}) {
      std::vector<Stream> streams;
      std::vector<Call> calls;
      const int tokens = 1 + round % 2;
      for (int i = 0; i <= round; ++i) {
        streams.push_back(make_stream(config, (i * 150 + 2) % (config.segment_length - 2), i % 2 == 0, random));
        calls.push_back(make_call(config, tokens, random));
      }
      std::vector<Stream*> all_streams;
      std::vector<Call*> all_calls;
      for (size_t i = 0; i < streams.size(); ++i) all_streams.push_back(&streams[i]), all_calls.push_back(&calls[i]);
      decode(config, all_streams, all_calls, scratch, tokens);
      for (size_t i = 0; i < streams.size(); ++i) {
        commit(config, streams[i], calls[i]);
        verify(config, streams[i], calls[i]);
      }
    }
  }
}

// More jobs than there are tickets. All but a few have no tokens, and cost nothing.
TEST(decode_many_streams) {
  auto random = check::random();
  const Config config = {.element = Element::Float32, .heads = 1024, .kv_heads = 1024, .head_dim = 1, .value_dim = 1,
                         .segment_length = 4};
  Draws draws;  // heads of one number: it must not cancel
  draws.value = [](Random& random) { return 1 + std::abs(normal()(random)); };
  Stream idle = make_stream(config, 0, false, random), busy = make_stream(config, 2, true, random, draws);
  Call nothing = make_call(config, 0, random), call = make_call(config, 1, random, draws);
  std::vector<Stream*> streams(66, &idle);
  std::vector<Call*> calls(66, &nothing);
  streams.back() = &busy;
  calls.back() = &call;
  Scratch scratch;
  decode(config, streams, calls, scratch, 1);
  commit(config, busy, call);
  verify(config, busy, call);
}

// ---- failures

enum class Input { Query, Key, Value, Matrix };

TEST(decode_flags_what_is_not_finite) {
  auto random = check::random();
  for (Element element : kElements) {
    for (double theta : {0.0, 10000.0}) {
      Config config = {.element = element, .heads = 4, .kv_heads = 2, .head_dim = 20, .value_dim = 12,
                       .segment_length = 200, .theta = theta};
      for (double bad : {double(NAN), double(INFINITY), -double(INFINITY)}) {
        for (Input input : {Input::Query, Input::Key, Input::Value, Input::Matrix}) {
          Stream good_stream = make_stream(config, 150, true, random), bad_stream = make_stream(config, 127, true,
                                                                                                random);
          Call good = make_call(config, 1, random), call = make_call(config, 3, random);
          Matrix& tensor = input == Input::Query ? call.query : input == Input::Key ? call.key : call.value;
          if (input == Input::Matrix) {
            std::vector<float> matrix = bad_stream.matrix.download();
            matrix[random() % matrix.size()] = float(bad);
            bad_stream.matrix.upload(matrix);
          } else {
            const size_t width = tensor.size() / 3;
            tensor[width + random() % width] = bad;  // of the second token
          }
          Scratch scratch;
          decode(config, {&good_stream, &bad_stream}, {&good, &call}, scratch);
          CHECK(good.failure == kNoFailure);
          CHECK(call.failure != kNoFailure && call.failure % 8 == kOutput);
          const long long token = (long long)(call.failure / 8);
          CHECK(token >= 1000 && token <= 1001);
          if (input == Input::Query) CHECK(token == 1001);
        }
      }
    }
  }
}

TEST(decode_flags_scores_beyond_float32) {
  auto random = check::random();
  for (Element element : {Element::Float32, Element::BFloat16}) {
    for (double sign : {1.0, -1.0}) {
      Config config = {.element = element, .heads = 1, .kv_heads = 1, .head_dim = 16, .value_dim = 16,
                       .segment_length = 100, .scale = 1};
      Stream stream = make_stream(config, 70, true, random);
      Call call = make_call(config, 2, random);
      for (int i = 0; i < 16; ++i) {
        call.query[size_t(16 + i)] = rounded(element, 1e25);
        stream.keys[size_t(30) * 16 + i] = rounded(element, sign * 1e15);
      }
      stream.cached_keys.upload(stream.keys);
      Scratch scratch;
      decode(config, {&stream}, {&call}, scratch);
      CHECK(call.failure == 1 * 8 + kOutput);
    }
  }
}

TEST(decode_flags_outputs_beyond_their_type) {
  auto random = check::random();
  Config config = {.element = Element::Float16, .heads = 1, .kv_heads = 1, .head_dim = 16, .value_dim = 16,
                   .segment_length = 100};
  Stream stream = make_stream(config, 70, true, random);
  std::vector<float> matrix = stream.matrix.download();
  for (float& x : matrix) x = 1e9f;
  stream.matrix.upload(matrix);
  Call call = make_call(config, 1, random);
  Scratch scratch;
  decode(config, {&stream}, {&call}, scratch);
  CHECK(call.failure == kOutput);
}

}  // namespace
}  // namespace infini::cuda

// The state kernels (key_sums, normalizers, sums, chain) through their launchers, against float64: what the memory is
// after any number of segments, and what is published before every piece; alone and together, in any cut.
#include "state_steps.h"

namespace infini::cuda::state {
namespace {

// Two full segments and a tail, then what fills the next; every piece of both calls.
void check_shape(const Config& config, Random& random) {
  with_name(config, [&] {
    Stream stream(config);
    const int n = config.segment_length;
    // The few numbers of a small M must not cancel: their errors are relative to what was added.
    const bool small = config.head_dim * config.value_dim < 256;
    const Draw key = small ? normal(1, 0.3) : normal(), value = small ? normal(3, 0.5) : normal();
    const Inputs inputs = draw(config, 3 * n, random, key, value);
    const int first = 2 * n + n / 2;
    const Left left = step(stream, cut(config, inputs, 0, first));
    check_published(stream, left, matrix_bound(config.element));
    check_padding(config, left, false);
    const Left later = step(stream, cut(config, inputs, first, 3 * n - first));
    check_published(stream, later, matrix_bound(config.element));
    check_padding(config, later, true);
    CHECK_ERROR(stream.matrix_error(), matrix_bound(config.element));
    CHECK_ERROR(stream.normalizer_error(), 2e-7);
    CHECK(stream.failed() == kNoFailure);
  });
}

TEST(state_of_small_shapes) {
  Random random = check::random();
  const int dims[][2] = {{1, 1}, {7, 33}, {16, 17}, {33, 7}, {64, 16}, {16, 64}};
  const int lengths[] = {1, 2, 5, 16, 63};
  check::each_schedule([&] {
    int turn = 0;
    for (const auto& [head_dim, value_dim] : dims) {
      for (Element element : kElements) {
        for (bool delta : {true, false}) {
          Config config = {element, delta, 1 + turn % 2, head_dim, value_dim, lengths[turn % 5]};
          config.in_place = turn % 3 != 0;
          check_shape(config, random);
          ++turn;
        }
      }
    }
  });
}

// Streams of one configuration: what each has seen before, and what it then gets in the same launches as the others.
struct Call {
  int before, tokens;
};

TEST(state_many_small_streams) {
  Random random = check::random();
  // Of 16 tokens to a segment: with and without an open segment, a memory, a border, a tail; more borders than one.
  const std::vector<Call> calls = {{0, 5},  {0, 16},  {3, 45},  {16, 10}, {21, 30},
                                   {31, 1}, {7, 150}, {40, 40}, {0, 1},   {32, 16}};
  check::each_schedule([&] {
    int turn = 0;
    for (Element element : kElements) {
      for (bool delta : {true, false}) {
        Config config = {element, delta, 2, 20, 24, 16};
        config.in_place = turn++ % 2 == 0;
        with_name(config, [&] {
          std::vector<Inputs> inputs;
          std::vector<Stream> alone, together, reversed;
          std::vector<Left> wanted;
          for (const Call& call : calls) {
            const Inputs all = draw(config, call.before + call.tokens, random, normal(), normal());
            inputs.push_back(cut(config, all, call.before, call.tokens));
            for (std::vector<Stream>* streams : {&alone, &together, &reversed}) {
              streams->emplace_back(config);
              if (call.before > 0) step(streams->back(), cut(config, all, 0, call.before));
            }
            wanted.push_back(step(alone.back(), inputs.back()));
            check_published(alone.back(), wanted.back(), matrix_bound(element));
            if (!alone.back().absorbed) continue;
            CHECK_ERROR(alone.back().matrix_error(), matrix_bound(element));
            CHECK_ERROR(alone.back().normalizer_error(), 2e-7);
          }
          std::vector<Stream*> forwards, backwards;
          for (Stream& stream : together) forwards.push_back(&stream);
          for (Stream& stream : reversed) backwards.insert(backwards.begin(), &stream);
          const std::vector<Left> first = step(forwards, inputs);
          const std::vector<Left> second = step(backwards, {inputs.rbegin(), inputs.rend()});
          for (size_t i = 0; i < calls.size(); ++i) {
            CHECK(together[i] == alone[i] && first[i] == wanted[i]);
            CHECK(reversed[i] == alone[i] && second[calls.size() - 1 - i] == wanted[i]);
            CHECK(together[i].failed() == kNoFailure && reversed[i].failed() == kNoFailure);
          }
        });
      }
    }
  });
}

// Dimensions of the wider buckets, where a block has some of the columns only.
void check_dims(const std::vector<std::pair<int, int>>& dims, Random& random) {
  const int lengths[] = {33, 70, 16, 45};
  int turn = 0;
  for (const auto& [head_dim, value_dim] : dims) {
    for (Element element : kElements) {
      for (bool delta : {true, false}) {
        check_shape({element, delta, 1 + turn % 2, head_dim, value_dim, lengths[turn % 4]}, random);
        ++turn;
      }
    }
  }
}
TEST(state_dims_65_to_128) {
  Random random = check::random();
  check_dims({{65, 100}, {128, 128}, {127, 16}, {1, 97}}, random);
}
TEST(state_dims_129_to_256) {
  Random random = check::random();
  check_dims({{129, 256}, {256, 200}, {255, 1}, {17, 145}}, random);
}

TEST(state_long_segments) {
  Random random = check::random();
  // 256 x 65 numbers are enough for shares of one bfloat16, as 1100 x 16 are.
  const int shapes[][3] = {{513, 16, 17}, {1100, 8, 40}, {1100, 16, 24}, {256, 65, 70}};
  int turn = 0;
  for (const auto& [length, head_dim, value_dim] : shapes) {
    for (Element element : kElements) {
      for (bool delta : {true, false}) {
        check_shape({element, delta, 1 + turn++ % 2, head_dim, value_dim, length}, random);
      }
    }
  }
}

TEST(state_whole_as_parts) {
  Random random = check::random();
  for (int length : {16, 512, 513, 1100}) {
    for (Element element : kElements) {
      for (bool delta : {true, false}) {
        Config config = {element, delta, 2, 24, 20, length};
        with_name(config, [&] {
          const Inputs inputs = draw(config, 2 * length + length / 3, random, normal(), normal());
          Stream parts(config);
          config.whole_sums = true;
          Stream whole(config);
          const Left left = step(whole, inputs);
          CHECK(left.is_published_like(step(parts, inputs)));
          CHECK(whole == parts);
          check_padding(config, left, false);
          CHECK(whole.failed() == kNoFailure);
        });
      }
    }
  }
}

// Errors neither add up nor depend on where calls begin and end: the state is the same bit for bit.
TEST(state_sixty_segments) {
  Random random = check::random();
  for (Element element : kElements) {
    for (bool delta : {true, false}) {
      const Config config = {element, delta, 1, 40, 33, 48};
      with_name(config, [&] {
        const int tokens = 60 * config.segment_length;
        const Inputs inputs = draw(config, tokens, random, normal(), normal());
        Stream at_once(config), cut_up(config);
        const Left left = step(at_once, inputs);
        check_published(at_once, left, matrix_bound(element));
        CHECK_ERROR(at_once.matrix_error(), matrix_bound(element));
        CHECK_ERROR(at_once.normalizer_error(), 1e-7);
        for (int first = 0, count; first < tokens; first += count) {
          count = std::min(tokens - first, 1 + int(random() % (8 * config.segment_length)));
          step(cut_up, cut(config, inputs, first, count));
        }
        CHECK(cut_up == at_once);
        CHECK(at_once.failed() == kNoFailure && cut_up.failed() == kNoFailure);
      });
    }
  }
}

}  // namespace
}  // namespace infini::cuda::state

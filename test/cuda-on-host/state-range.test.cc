// The state kernels at the ends of float32's range: sigmas of all sizes, sums that keep every bit, and which calls fail
// because M or z leaves the range, at which token.
#include "state_steps.h"

namespace infini::cuda::state {
namespace {

// The mean of each column is one of `means`.
Draw columns_of(const std::vector<double>& means) {
  return [=](Random& random, int column) {
    return std::normal_distribution<double>(means[size_t(column) % means.size()], 1)(random);
  };
}

// Row by row: what a small sigma adds must not drown in what a large one does.
TEST(state_of_small_sigmas) {
  Random random = check::random();
  const std::vector<std::vector<double>> columns = {{-80}, {-84, -83}, {-80, 0}, {-80, -40, 3, 60000}, {60000},
                                                    {-100, 0, -78}};
  check::each_schedule([&] {
    for (Element element : kElements) {
      for (bool delta : {true, false}) {
        for (const std::vector<double>& means : columns) {
          const Config config = {element, delta, 1, 20, 24, 19};
          with_name(config, [&] {
            Stream stream(config);
            const Inputs inputs = draw(config, 60, random, columns_of(means), normal(2));
            check_published(stream, step(stream, inputs), matrix_bound(element));
            CHECK_ERROR(stream.matrix_error(true), matrix_bound(element));
            CHECK_ERROR(stream.normalizer_error(), 2e-7);
            CHECK(stream.failed() == kNoFailure);
          });
        }
      }
    }
  });
}

// float16 ends where these begin.
TEST(state_of_sigmas_that_small_and_large_types_hold) {
  Random random = check::random();
  for (Element element : {Element::Float32, Element::BFloat16}) {
    for (bool delta : {true, false}) {
      const Config config = {element, delta, 1, 20, 24, 19};
      with_name(config, [&] {
        Stream stream(config);
        const Draw key = [](Random& random, int column) {
          const double sizes[] = {1e30, 1e33, 1, -80};
          return sizes[column % 4] * std::uniform_real_distribution<double>(1, 1.05)(random);
        };
        step(stream, draw(config, 60, random, key, normal(2)));
        CHECK_ERROR(stream.matrix_error(true), matrix_bound(element));
        CHECK_ERROR(stream.normalizer_error(), 2e-7);
        CHECK(stream.failed() == kNoFailure);
      });
    }
  }
}

// Every sum of these keys is exact in float64; eight of them are in float32, more are not.
TEST(state_z_is_exact) {
  Random random = check::random();
  const Draw key = [](Random& random, int) {
    const double least = random() % 2 == 0 ? 1 : 8192;
    return rounded(Element::BFloat16, least * std::uniform_real_distribution<double>(1, 1.99)(random));
  };
  for (Element element : kElements) {
    for (int length : {1, 30, 1100}) {
      const Config config = {element, false, 2, 7, 3, length};
      with_name(config, [&] {
        Stream stream(config);
        step(stream, draw(config, std::max(3 * length, 200), random, key, normal()));
        CHECK(stream.normalizer_error() == 0);
      });
    }
  }
}

// ---- which calls fail ---------------------------------------------------------------------------

double& at(Matrix& tensor, const Config& config, int dim, int token, int head, int column) {
  return tensor[(size_t(token) * config.kv_heads + head) * dim + column];
}

// Adds sigma * value to one number of M, and nothing to the others.
void aim(Inputs& inputs, const Config& config, int token, int head, int row, int column, double sigma, double value) {
  for (int i = 0; i < config.head_dim; ++i) {
    at(inputs.key, config, config.head_dim, token, head, i) = i == row ? rounded(config.element, sigma - 1) : -1000;
  }
  for (int j = 0; j < config.value_dim; ++j) {
    at(inputs.value, config, config.value_dim, token, head, j) = j == column ? rounded(config.element, value) : 0;
  }
}

// At the last token of the segment that a token of the call falls into.
Failure failure_at(const Stream& before, int token) {
  const int n = before.config.segment_length, border = (before.open + token) / n;
  return Failure(before.first_token + (border + 1) * n - before.open - 1) * 8 + kMemory;
}

// A stream whose call goes on after some tokens, 11 of them in the open segment.
Stream begun(const Config& config, int segments, Random& random) {
  Stream stream(config);
  step(stream, draw(config, segments * config.segment_length + 11, random, normal(), normal()));
  stream.first_token += 1000;
  return stream;
}

TEST(state_flags_m_beyond_the_range) {
  Random random = check::random();
  for (Element element : {Element::Float32, Element::BFloat16}) {
    for (bool delta : {true, false}) {
      Config config = {element, delta, 2, 20, 44, 16};
      config.in_place = delta;
      with_name(config, [&] {
        const int places[][2] = {{0, 0}, {7, 33}, {8, 7}, {19, 43}, {int(random() % 20), int(random() % 44)}};
        for (const auto& [row, column] : places) {
          // The segments end after tokens 4, 20 and 36; one stays open.
          for (int token : {0, 4, 5, 20, 36, 37}) {
            Stream stream = begun(config, int(random() % 2), random);
            Inputs inputs = draw(config, 45, random, normal(), normal());
            aim(inputs, config, token, int(random() % 2), row, column, 2, 3e38);
            const Failure wanted = token < 37 ? failure_at(stream, token) : kNoFailure;
            step(stream, inputs);
            CHECK(stream.failed() == wanted);
          }
        }
      });
    }
  }
}

// The keys of a component leave the range; without values M does not.
TEST(state_flags_z_beyond_the_range) {
  Random random = check::random();
  for (Element element : {Element::Float32, Element::BFloat16}) {
    for (bool delta : {true, false}) {
      const Config config = {element, delta, 2, 37, 3, 16};
      with_name(config, [&] {
        int turn = 0;
        // Of the first segments, the ninth to the eleventh, the one that stays open.
        for (int token : {3, 5, 19, 117, 133, 149, 165}) {
          Stream stream = begun(config, int(random() % 2), random);
          Inputs inputs = draw(config, 5 + 10 * 16 + 9, random, normal(), normal());
          const int rows[] = {0, 36, 15, 31}, row = rows[turn++ % 4], head = int(random() % 2);
          for (int t : {token, token + 1}) aim(inputs, config, t, head, row, 0, 1.5e35, 0);
          const Failure wanted = token < 165 ? failure_at(stream, token) : kNoFailure;
          step(stream, inputs);
          CHECK(stream.failed() == wanted);
        }
      });
    }
  }
}

// Not where the sum began but where it left the range; what comes after it, or was noted before, does not count.
TEST(state_flags_the_first_token) {
  Random random = check::random();
  for (Element element : {Element::Float32, Element::BFloat16}) {
    for (bool of_z : {true, false}) {
      const Config config = {element, false, 1, 8, 8, 16};
      with_name(config, [&] {
        for (Failure noted : {kNoFailure, Failure(8 * 1011 + kKey)}) {
          Stream stream = begun(config, 1, random);
          stream.failure.upload({noted});
          Inputs inputs = draw(config, 5 + 16 * 16, random, normal(), normal());
          for (int token : {10, 100, 200}) aim(inputs, config, token, 0, 3, 5, of_z ? 1e35 : 1, of_z ? 0 : 2e38);
          const Failure wanted = std::min(noted, failure_at(stream, 100));
          step(stream, inputs);
          CHECK(stream.failed() == wanted);
        }
      });
    }
  }
}

TEST(state_flags_one_of_many_small_streams) {
  Random random = check::random();
  check::each_schedule([&] {
    const Config config = {Element::BFloat16, true, 1, 20, 12, 16};
    std::vector<Stream> streams;
    std::vector<Inputs> inputs;
    std::vector<Stream*> all;
    std::vector<Failure> wanted;
    for (int i = 0; i < 4; ++i) streams.push_back(begun(config, i % 2, random));
    for (int i = 0; i < 4; ++i) {
      inputs.push_back(draw(config, 60, random, normal(), normal()));
      all.push_back(&streams[size_t(i)]);
      wanted.push_back(i % 2 == 0 ? kNoFailure : failure_at(streams[size_t(i)], 20 * i - 15));
      if (i % 2 == 1) aim(inputs.back(), config, 20 * i - 15, 0, 3, 11, 2, 3e38);
    }
    step(all, inputs);
    for (size_t i = 0; i < 4; ++i) CHECK(streams[i].failed() == wanted[i]);
  });
}

TEST(state_flags_of_long_segments) {
  Random random = check::random();
  for (Element element : {Element::Float32, Element::BFloat16}) {
    for (bool whole_sums : {false, true}) {
      for (bool of_z : {false, true}) {
        // Tokens of the first chunk, the border of the chunks, the last.
        for (int token : {0, 511, 512, 598}) {
          Config config = {element, true, 1, 8, 8, 600, whole_sums};
          Stream stream(config);
          Inputs inputs = draw(config, 1300, random, normal(), normal());
          for (int t : {token, token + 1}) aim(inputs, config, t, 0, 7, 2, of_z ? 1.5e35 : 1, of_z ? 0 : 2e38);
          step(stream, inputs);
          CHECK(stream.failed() == 599 * 8 + kMemory);
        }
      }
    }
  }
}

// float16 cannot get there by itself.
TEST(state_flags_a_small_memory_that_is_not_finite) {
  Random random = check::random();
  for (Element element : kElements) {
    for (bool of_z : {true, false}) {
      for (double bad : {double(INFINITY), -double(INFINITY), double(NAN)}) {
        const Config config = {element, false, 1, 20, 40, 16};
        Stream stream = begun(config, 1, random);
        std::vector<float> matrix = stream.matrix.download();
        std::vector<double> normalizer = stream.normalizer.download();
        (of_z ? normalizer[random() % 20] : bad) = bad;
        if (!of_z) matrix[random() % 800] = float(bad);
        stream.matrix.upload(matrix);
        stream.normalizer.upload(normalizer);
        const Failure wanted = failure_at(stream, 0);
        step(stream, draw(config, 40, random, normal(), normal()));
        CHECK(stream.failed() == wanted);
      }
    }
  }
}

TEST(state_flags_nothing_at_the_top_of_the_range) {
  Random random = check::random();
  for (Element element : {Element::Float32, Element::BFloat16}) {
    for (bool of_z : {true, false}) {
      // Eight tokens a segment: z comes to 1.6e35 with the second, M to 3.2e38 with the first; the second stores what it
      // reads.
      const Config config = {element, !of_z, 1, 20, 24, 8};
      with_name(config, [&] {
        const Draw large = [=](Random& random, int) {
          return (of_z ? 1e34 : 4e37) * std::uniform_real_distribution<double>(0.99, 1)(random);
        };
        Stream stream(config);
        step(stream, draw(config, 16, random, of_z ? large : normal(-1e-3, 0), of_z ? normal(0.5, 0.1) : large));
        CHECK(stream.failed() == kNoFailure);
        CHECK_ERROR(stream.matrix_error(), matrix_bound(element));
        CHECK_ERROR(stream.normalizer_error(), 2e-7);
      });
    }
  }
}

}  // namespace
}  // namespace infini::cuda::state

// The layers of a model that are not attention, through their launchers, against float64: gather, normalize, linear.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "check.h"
#include "device_array.h"
#include "launch.h"
#include "tiles.h"  // kFewRows

namespace infini::cuda {
namespace {

using Numbers = std::vector<double>;
using Floats = std::vector<float>;
using Random = std::mt19937_64;

constexpr Element kElements[] = {Element::Float32, Element::BFloat16, Element::Float16};
constexpr Act kActs[] = {Act::None, Act::Silu, Act::Gelu, Act::GeluTanh};
constexpr Into kIntos[] = {Into::Store, Into::Add, Into::Times};
constexpr int kRows[] = {1, 2, 3, 17, 64, 65, 200};
constexpr int kWidths[] = {1, 5, 16, 33, 64, 130, 300};
constexpr int kBehind = 7;  // numbers behind every result, which stay as they are

Numbers draw(size_t count, Random& random, double scale = 1) {
  std::normal_distribution<double> normal(0, scale);
  Numbers numbers(count);
  for (double& x : numbers) x = normal(random);
  return numbers;
}
Floats draw_floats(size_t count, Random& random, double scale = 1) {
  const Numbers numbers = draw(count, random, scale);
  return {numbers.begin(), numbers.end()};
}

bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// What a launch makes of an array that held `before`, with NaN behind it.
template <class Launch> Floats result_of(Floats before, Launch launch_into) {
  const size_t count = before.size();
  before.resize(count + kBehind, NAN);
  const DeviceArray<float> array(before);
  CHECK_CUDA(launch_into(array.get()));
  Floats after = array.download();
  for (size_t i = count; i < after.size(); ++i) CHECK(std::isnan(after[i]));
  after.resize(count);
  return after;
}

double activated(Act act, double x) {
  switch (act) {
    case Act::Silu: return x / (1 + std::exp(-x));
    case Act::Gelu: return x / 2 * std::erfc(-x / std::sqrt(2));
    // (1 + tanh(u)) / 2, without its cancellation.
    case Act::GeluTanh: return x / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    default: return x;
  }
}

// ---- linear

struct Layer {
  Element element;
  int inputs, outputs, rows;
  Act act = Act::None;
  Into into = Into::Store;
};

struct Operands {
  Numbers weight;  // as the element holds it
  Floats x, y;     // y: before
};

Operands draw_operands(const Layer& layer, Random& random, double weight_scale = 1, double x_scale = 1) {
  const size_t rows = size_t(layer.rows), outputs = size_t(layer.outputs), inputs = size_t(layer.inputs);
  Operands operands;
  operands.weight = rounded(layer.element, draw(outputs * inputs, random, weight_scale));
  operands.x = draw_floats(rows * inputs, random, x_scale);
  operands.y = layer.into == Into::Store ? Floats(rows * outputs, NAN) : draw_floats(rows * outputs, random);
  return operands;
}

Floats run(const Layer& layer, const Operands& operands) {
  const ElementArray weight(layer.element, operands.weight);
  const DeviceArray<float> x(operands.x);
  return result_of(operands.y, [&](float* y) {
    return launch_linear({layer.element, weight.get(), layer.inputs, layer.outputs, layer.rows, x.get(), y, layer.act,
                          layer.into},
                         nullptr);
  });
}

// The norm of the errors relative to the norm that such results have: where terms cancel, they err as terms do.
double error_of(const Layer& layer, const Operands& operands, const Floats& actual) {
  double errors = 0, norm = 0;
  for (int row = 0; row < layer.rows; ++row) {
    for (int output = 0; output < layer.outputs; ++output) {
      double sum = 0, squares = 0;
      for (int i = 0; i < layer.inputs; ++i) {
        const double product = double(operands.x[size_t(row) * layer.inputs + i]) *
                               operands.weight[size_t(output) * layer.inputs + i];
        sum += product;
        squares += product * product;
      }
      const size_t at = size_t(row) * layer.outputs + output;
      const double v = activated(layer.act, sum), before = operands.y[at];
      double expected = v, typical = std::sqrt(squares);
      if (layer.into == Into::Add) expected += before, typical += std::fabs(before);
      if (layer.into == Into::Times) expected *= before, typical *= std::fabs(before);
      if (!std::isfinite(actual[at])) return INFINITY;
      errors += (actual[at] - expected) * (actual[at] - expected);
      norm += typical * typical;
    }
  }
  return std::sqrt(errors / norm);
}

void run_and_compare(const Layer& layer, Random& random) {
  const Operands operands = draw_operands(layer, random);
  CHECK_ERROR(error_of(layer, operands, run(layer, operands)), 5e-7);
}

TEST(dense_small_linear) {
  Random random = check::random();
  for (Element element : kElements) {
    for (int rows : {1, 5, kFewRows + 1}) {
      for (int inputs : {1, 16, 33}) {
        for (int outputs : {1, 9, 66}) run_and_compare({element, inputs, outputs, rows}, random);
      }
    }
  }
}

TEST(dense_linear_of_every_width) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : kElements) {
      for (int inputs : kWidths) {
        for (int outputs : kWidths) {
          // Both tiles; more rows than one has of each.
          run_and_compare({element, inputs, outputs, 1 + int(random() % 6)}, random);
          run_and_compare({element, inputs, outputs, kFewRows + 1 + int(random() % 80)}, random);
        }
      }
    }
  });
}

TEST(dense_linear_of_every_row_count) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : kElements) {
      for (int rows : kRows) {
        for (int inputs : {32, 130, 300}) run_and_compare({element, inputs, 1 + int(random() % 150), rows}, random);
      }
    }
  });
}

// Several steps of either tile, and where a step ends.
TEST(dense_linear_of_long_rows) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : kElements) {
      for (int inputs : {511, 512, 513, 1500, 2056}) {
        for (int rows : {3, kFewRows + 1}) run_and_compare({element, inputs, 70, rows}, random);
      }
    }
  });
}

TEST(dense_linear_epilogues) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : kElements) {
      for (Act act : kActs) {
        for (Into into : kIntos) {
          for (int rows : {3, kFewRows + 1}) run_and_compare({element, 20, 33, rows, act, into}, random);
        }
      }
    }
  });
}

// A row's numbers are the same bits alone, among others and at another place, on either side of where tiles change.
TEST(dense_linear_rows_alone_as_together) {
  check::each_schedule([] {
    Random random = check::random();
    constexpr int kAll = 200;
    for (Element element : kElements) {
      for (int inputs : {5, 130, 700}) {
        const Act act = kActs[random() % 4];
        const Into into = kIntos[random() % 3];
        const Layer all = {element, inputs, 67, kAll, act, into};
        const Operands operands = draw_operands(all, random);
        const Floats together = run(all, operands);
        for (int rows : {1, 2, 3, 17, kFewRows, kFewRows + 1, 64, 65}) {
          const int first = int(random() % unsigned(kAll - rows + 1));
          Layer some = all;
          some.rows = rows;
          const auto part = [&](const Floats& from, int width) {
            return Floats(from.begin() + first * width, from.begin() + (first + rows) * width);
          };
          const Operands alone = {operands.weight, part(operands.x, inputs), part(operands.y, all.outputs)};
          CHECK(same_bits(run(some, alone), part(together, all.outputs)));
        }
      }
    }
  });
}

// The largest weights, subnormal ones, and rows that make up for both.
TEST(dense_linear_of_extreme_values) {
  Random random = check::random();
  for (Element element : kElements) {
    const double large = element == Element::Float16 ? 1e4 : 1e37, small = element == Element::Float16 ? 1e-6 : 1e-38;
    for (int rows : {3, kFewRows + 1}) {
      const Layer layer = {element, 100, 30, rows};
      for (const auto& [weight_scale, x_scale] : {std::pair(large, 1e-37), {large, 1e-2}, {small, 1e37}, {1.0, 1e36}}) {
        const Operands operands = draw_operands(layer, random, weight_scale, x_scale);
        CHECK_ERROR(error_of(layer, operands, run(layer, operands)), 5e-7);
      }
    }
  }
}

// The sums of a chunk are added in float32: terms of one sign lose no more than the last places.
TEST(dense_linear_of_terms_of_one_sign) {
  Random random = check::random();
  for (int rows : {1, kFewRows + 1}) {
    const Layer layer = {Element::Float32, 4000, 10, rows};
    Operands operands = draw_operands(layer, random);
    for (double& w : operands.weight) w = std::fabs(w);
    for (float& x : operands.x) x = std::fabs(x);
    const Floats actual = run(layer, operands);
    for (int row = 0; row < rows; ++row) {
      for (int output = 0; output < layer.outputs; ++output) {
        double sum = 0;
        for (int i = 0; i < layer.inputs; ++i) {
          sum += operands.x[size_t(row) * layer.inputs + i] * operands.weight[size_t(output) * layer.inputs + i];
        }
        CHECK_CLOSE(actual[size_t(row) * layer.outputs + output], sum, 1e-5 * sum);
      }
    }
  }
}

// v is the number itself: the only input is 1, or the only weight.
TEST(dense_activations_of_any_number) {
  Floats numbers = {0.0f, -0.0f, 3.4e38f, -3.4e38f};
  for (double size = 1e-40; size < 3e38; size *= 1.7) numbers.insert(numbers.end(), {float(size), -float(size)});
  for (float at = -20; at < 20; at += 0.0625f) numbers.push_back(at);
  const int count = int(numbers.size());
  const Floats before(numbers.size(), NAN);
  for (Act act : kActs) {
    const Floats across = run({Element::Float32, 1, count, 1, act}, {{numbers.begin(), numbers.end()}, {1.0f}, before});
    const Floats down = run({Element::Float32, 1, 1, count, act}, {{1.0}, numbers, before});
    for (int i = 0; i < count; ++i) {
      // Below 0 the results die out as exp(-x^2 / 2) does, and with x the exponent is rounded.
      const double x = numbers[size_t(i)], expected = activated(act, x), exponent = x < 0 ? std::min(x * x, 1e3) : 0;
      CHECK_CLOSE(across[size_t(i)], expected, 1e-6 * (1 + exponent) * std::fabs(expected) + (x < -10 ? 1e-36 : 1e-44));
    }
    CHECK(same_bits(across, down));
  }
}

// ---- normalize

Numbers normalized(const Floats& x, const Numbers& weight, double epsilon) {
  const size_t width = weight.size();
  Numbers y;
  for (size_t begin = 0; begin < x.size(); begin += width) {
    double squares = 0;
    for (size_t i = 0; i < width; ++i) squares += double(x[begin + i]) * x[begin + i];
    const double root = std::sqrt(squares / double(width) + epsilon);
    for (size_t i = 0; i < width; ++i) y.push_back(x[begin + i] * weight[i] / root);
  }
  return y;
}

Floats run_normalize(Element element, const Numbers& weight, const Floats& x, double epsilon) {
  const ElementArray weights(element, weight);
  const DeviceArray<float> from(x);
  const int width = int(weight.size());
  return result_of(Floats(x.size(), NAN), [&](float* to) {
    return launch_normalize(element, weights.get(), from.get(), to, width, int(x.size()) / width, epsilon, nullptr);
  });
}

void check_normalize(Element element, int width, int rows, double scale, double epsilon, Random& random) {
  const Numbers weight = rounded(element, draw(size_t(width), random));
  const Floats x = draw_floats(size_t(width) * rows, random, scale);
  const Floats actual = run_normalize(element, weight, x, epsilon);
  CHECK_ERROR(check::relative_error(actual.data(), normalized(x, weight, epsilon).data(), actual.size()), 1.2e-7);
}

TEST(dense_small_normalize) {
  Random random = check::random();
  for (Element element : kElements) check_normalize(element, 37, 3, 1, 1e-5, random);
}

TEST(dense_normalize) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : kElements) {
      for (int width : {1, 5, 16, 33, 64, 130, 256, 257, 300, 1000}) {
        for (int rows : {1, 2, 17}) check_normalize(element, width, rows, 1, 1e-6, random);
      }
    }
  });
}

// Squares that float32 does not hold, and numbers that only epsilon keeps from 1.
TEST(dense_normalize_extreme_values) {
  Random random = check::random();
  for (Element element : kElements) {
    for (double scale : {1e-35, 1e-20, 1e-3, 1e10, 1e25, 5e37}) {
      for (double epsilon : {1e-5, 1e-12, 0.1}) check_normalize(element, 100, 5, scale, epsilon, random);
    }
  }
  CHECK(same_bits(run_normalize(Element::Float32, {1, 2, 3}, {0, 0, 0}, 1e-6), {0, 0, 0}));
}

TEST(dense_normalize_rows_alone_as_together) {
  Random random = check::random();
  for (int width : {7, 300}) {
    const Numbers weight = rounded(Element::BFloat16, draw(size_t(width), random));
    const Floats x = draw_floats(size_t(width) * 20, random);
    const Floats together = run_normalize(Element::BFloat16, weight, x, 1e-5);
    for (int row : {0, 13, 19}) {
      const auto begin = row * width, end = begin + width;
      const Floats alone = run_normalize(Element::BFloat16, weight, {x.begin() + begin, x.begin() + end}, 1e-5);
      CHECK(same_bits(alone, {together.begin() + begin, together.begin() + end}));
    }
  }
}

// ---- gather

void check_gather(Element element, int width, int table_rows, const std::vector<int>& indices, Random& random) {
  Numbers table = rounded(element, draw(size_t(width) * table_rows, random));
  table[0] = element == Element::Float16 ? 65504 : 0x1p127;
  table.back() = -0.0;
  Floats expected;
  for (int index : indices) {
    for (int i = 0; i < width; ++i) expected.push_back(float(table[size_t(index) * width + i]));
  }
  const ElementArray device_table(element, table);
  const DeviceArray<int> device_indices(indices);
  const Floats actual = result_of(Floats(expected.size(), NAN), [&](float* to) {
    return launch_gather(element, device_table.get(), device_indices.get(), to, width, int(indices.size()), nullptr);
  });
  CHECK(same_bits(actual, expected));
}

TEST(dense_small_gather) {
  check::each_schedule([] {
    Random random = check::random();
    for (Element element : kElements) {
      for (int width : {1, 5, 64, 300}) {
        check_gather(element, width, 9, {8}, random);
        check_gather(element, width, 9, {3, 0, 8, 3, 3, 1, 0}, random);
      }
    }
  });
}

TEST(dense_of_no_rows) {
  CHECK_CUDA(launch_linear({Element::Float32, nullptr, 5, 5, 0, nullptr, nullptr, Act::None, Into::Store}, nullptr));
  CHECK_CUDA(launch_normalize(Element::Float32, nullptr, nullptr, nullptr, 5, 0, 1e-5, nullptr));
  CHECK_CUDA(launch_gather(Element::Float32, nullptr, nullptr, nullptr, 5, 0, nullptr));
}

}  // namespace
}  // namespace infini::cuda

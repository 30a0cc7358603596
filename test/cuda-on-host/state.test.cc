// The state kernels (key_sums, normalizers, sums, chain) through their launchers, against float64: what the memory is
// after any number of segments, what is published before every piece, and which calls fail.
//
// A Stream keeps what the host keeps of one stream. step() does for some streams together what the host does for a call:
// it lays out jobs, borders and workspace, launches the kernels, moves the open tail into the cache. Everything that a
// kernel has to write, and every row of a cache that it must not read, is NaN before.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "core/segments.h"
#include "device_array.h"
#include "launch.h"
#include "reference.h"

namespace infini::cuda {
namespace {

using reference::Matrix;
using Random = std::mt19937_64;

struct Config {
  Element element = Element::Float32;
  bool delta = true;
  int kv_heads = 1, head_dim = 16, value_dim = 16, segment_length = 16;
  bool whole_sums = false, in_place = true;

  Shape shape() const {
    return {element, delta, false, kv_heads, kv_heads, head_dim, value_dim, segment_length, 1.0f, nullptr, nullptr};
  }
  int terms() const { return snapshot_terms(element); }
};

std::string name_of(const Config& config) {
  static const char* const elements[] = {"float32", "bfloat16", "float16"};
  return std::string(elements[int(config.element)]) + (config.delta ? " delta" : " linear") + " " +
         std::to_string(config.kv_heads) + " x " + std::to_string(config.head_dim) + " x " + std::to_string(config.value_dim) +
         ", N = " + std::to_string(config.segment_length);
}

// Draws number `index` of a row.
using Draw = std::function<double(Random&, int index)>;
Draw normal(double mean = 0, double deviation = 1) {
  return [=](Random& random, int) { return std::normal_distribution<double>(mean, deviation)(random); };
}

struct Inputs {
  Matrix key, value;  // [tokens][kv_heads][dim], as the stream's type holds them
};
Inputs draw(const Config& config, int tokens, Random& random, const Draw& key, const Draw& value) {
  const auto fill = [&](int dim, const Draw& draw_one) {
    Matrix numbers(size_t(tokens) * config.kv_heads * dim);
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = rounded(config.element, draw_one(random, int(i % size_t(dim))));
    return numbers;
  };
  return {fill(config.head_dim, key), fill(config.value_dim, value)};
}
Inputs cut(const Config& config, const Inputs& inputs, int first, int count) {
  const auto rows = [&](const Matrix& from, int dim) {
    const size_t width = size_t(config.kv_heads) * dim;
    return Matrix(from.begin() + long(first * width), from.begin() + long((first + count) * width));
  };
  return {rows(inputs.key, config.head_dim), rows(inputs.value, config.value_dim)};
}

struct Stream {
  Config config;
  ElementArray cached_keys, cached_values;
  DeviceArray<float> matrix;
  DeviceArray<double> normalizer;
  DeviceArray<Failure> failure;
  bool absorbed = false;
  int open = 0;
  long long first_token = 0;
  std::vector<reference::Memory> wanted;                   // of each head
  Inputs tail;                                             // of the open segment
  std::vector<std::vector<reference::Memory>> published;   // before each piece of the last step

  explicit Stream(const Config& config)
      : config(config), cached_keys(config.element, size_t(config.kv_heads) * config.segment_length * config.head_dim),
        cached_values(config.element, size_t(config.kv_heads) * config.segment_length * config.value_dim),
        matrix(size_t(config.kv_heads) * config.head_dim * config.value_dim),
        normalizer(size_t(config.kv_heads) * config.head_dim), failure(1),
        wanted(size_t(config.kv_heads), reference::Memory(config.head_dim, config.value_dim)) {
    failure.upload({kNoFailure});
  }

  Failure failed() const { return failure.download()[0]; }

  // Relative error of M and of z, the largest of any head. `by_row`: of any row of M.
  double matrix_error(bool by_row = false) const {
    const std::vector<float> all = matrix.download();
    const size_t size = size_t(config.head_dim) * config.value_dim, width = by_row ? size_t(config.value_dim) : size;
    double worst = 0;
    for (int head = 0; head < config.kv_heads; ++head) {
      for (size_t at = 0; at < size; at += width) {
        const float* actual = &all[head * size + at];
        worst = std::max(worst, check::relative_error(actual, &wanted[size_t(head)].matrix[at], width));
      }
    }
    return worst;
  }
  double normalizer_error() const {
    const std::vector<double> all = normalizer.download();
    double worst = 0;
    for (int head = 0; head < config.kv_heads; ++head) {
      worst = std::max(worst, check::relative_error(&all[size_t(head) * config.head_dim],
                                                    wanted[size_t(head)].normalizer.data(), size_t(config.head_dim)));
    }
    return worst;
  }
};

// The reference's part of a step.
void advance_reference(Stream& stream, const Inputs& inputs, int tokens) {
  const Config& config = stream.config;
  const Pieces pieces(stream.open, tokens, config.segment_length);
  stream.published.clear();
  for (int64_t index = 0; index < pieces.size(); ++index) {
    const Piece piece = pieces[index];
    stream.published.push_back(stream.wanted);
    const Inputs added = cut(config, inputs, int(piece.token), int(piece.count));
    if (piece.start == 0) stream.tail = {};
    stream.tail.key.insert(stream.tail.key.end(), added.key.begin(), added.key.end());
    stream.tail.value.insert(stream.tail.value.end(), added.value.begin(), added.value.end());
    if (!piece.completes) continue;
    for (int head = 0; head < config.kv_heads; ++head) {
      reference::absorb(stream.wanted[size_t(head)],
                        reference::head_of(stream.tail.key, config.kv_heads, config.head_dim, head, 0, config.segment_length),
                        reference::head_of(stream.tail.value, config.kv_heads, config.value_dim, head, 0,
                                           config.segment_length),
                        config.delta);
    }
  }
}

// Rows 0..count - 1 of a cache from a tensor; the others NaN.
void fill_cache(ElementArray& cache, const Matrix& tensor, int kv_heads, int length, int dim, int count) {
  Matrix rows(size_t(kv_heads) * length * dim, NAN);
  for (int head = 0; head < kv_heads; ++head) {
    for (int position = 0; position < count; ++position) {
      const double* from = &tensor[(size_t(position) * kv_heads + head) * dim];
      std::copy(from, from + dim, &rows[(size_t(head) * length + position) * dim]);
    }
  }
  cache.upload(rows);
}

// What the kernels left in the workspace.
struct Left {
  std::vector<double> key_sums;
  std::vector<float> normalizers, sums;
  std::vector<double> snapshots;  // decoded; float16's two terms apart
};

Left step(const std::vector<Stream*>& streams, const std::vector<Inputs>& inputs) {
  const Config& config = streams[0]->config;
  const int heads = config.kv_heads, rows = padded(config.head_dim), columns = padded(config.value_dim);
  const Shape shape = config.shape();

  std::vector<Job> jobs;
  std::vector<Place> borders;
  std::vector<ElementArray> tensors;
  std::vector<DeviceArray<float>> next_matrices;
  std::vector<DeviceArray<double>> next_normalizers;
  int piece_count = 0;
  for (size_t i = 0; i < streams.size(); ++i) {
    Stream& stream = *streams[i];
    const int tokens = int(inputs[i].key.size() / size_t(heads * config.head_dim));
    const Pieces pieces(stream.open, tokens, config.segment_length);
    Job job = {};
    const auto tensor = [&](const Matrix& values) {
      tensors.emplace_back(config.element, values);
      return tensors.back().get();
    };
    job.key = tensor(inputs[i].key);
    job.value = tensor(inputs[i].value);
    job.cached_keys = stream.cached_keys.get();
    job.cached_values = stream.cached_values.get();
    job.matrix = stream.matrix.get();
    job.normalizer = stream.normalizer.get();
    next_matrices.emplace_back(stream.matrix.size());
    next_normalizers.emplace_back(stream.normalizer.size());
    job.next_matrix = config.in_place ? stream.matrix.get() : next_matrices.back().get();
    job.next_normalizer = config.in_place ? stream.normalizer.get() : next_normalizers.back().get();
    job.failure = stream.failure.get();
    job.first_token = stream.first_token;
    job.tokens = tokens;
    job.open = stream.open;
    job.absorbed = stream.absorbed;
    job.borders = int(pieces.completed());
    job.pieces = int(pieces.size());
    job.first_border = int(borders.size());
    job.first_piece = piece_count;
    for (int border = 0; border < job.borders; ++border) borders.push_back({int(i), border});
    piece_count += job.pieces;
    jobs.push_back(job);
  }

  const int parts = config.whole_sums ? 1 : chunks(config.segment_length);
  const int width = columns + (config.delta ? rows : 0);
  DeviceArray<Job> device_jobs(jobs);
  DeviceArray<Place> device_borders(borders);
  DeviceArray<double> key_sums(borders.size() * heads * config.head_dim);
  DeviceArray<float> normalizers(size_t(piece_count) * heads * rows);
  DeviceArray<float> sums(borders.size() * heads * parts * rows * width);
  ElementArray snapshots(config.element == Element::Float32 ? Element::Float32 : Element::BFloat16,
                         size_t(piece_count) * heads * config.terms() * rows * columns);
  const Workspace workspace = {key_sums.get(), normalizers.get(), sums.get(), snapshots.get(), config.whole_sums};
  const int job_count = int(jobs.size()), border_count = int(borders.size());
  CHECK_CUDA(launch_key_sums(shape, device_jobs.get(), device_borders.get(), border_count, workspace, nullptr));
  CHECK_CUDA(launch_normalizers(shape, device_jobs.get(), job_count, workspace, nullptr));
  CHECK_CUDA(launch_sums(shape, device_jobs.get(), device_borders.get(), border_count, workspace, nullptr));
  CHECK_CUDA(launch_chain(shape, device_jobs.get(), job_count, workspace, nullptr));
  Left left = {key_sums.download(), normalizers.download(), sums.download(), snapshots.download()};

  for (size_t i = 0; i < streams.size(); ++i) {
    Stream& stream = *streams[i];
    const Job& job = jobs[i];
    advance_reference(stream, inputs[i], job.tokens);
    if (job.borders > 0 && !config.in_place) {
      stream.matrix = std::move(next_matrices[i]);
      stream.normalizer = std::move(next_normalizers[i]);
    }
    stream.absorbed = stream.absorbed || job.borders > 0;
    stream.open = (stream.open + job.tokens) % config.segment_length;
    stream.first_token += job.tokens;
    fill_cache(stream.cached_keys, stream.tail.key, heads, config.segment_length, config.head_dim, stream.open);
    fill_cache(stream.cached_values, stream.tail.value, heads, config.segment_length, config.value_dim, stream.open);
  }
  return left;
}
Left step(Stream& stream, const Inputs& inputs) { return step(std::vector<Stream*>{&stream}, {inputs}); }

// Everything that one stream's step has published, against the reference; padding exactly zero.
void check_published(const Stream& stream, const Left& left, double bound) {
  const Config& config = stream.config;
  const int heads = config.kv_heads, rows = padded(config.head_dim), columns = padded(config.value_dim);
  const size_t size = size_t(rows) * columns;
  for (size_t piece = 0; piece < stream.published.size(); ++piece) {
    for (int head = 0; head < heads; ++head) {
      const reference::Memory& wanted = stream.published[piece][size_t(head)];
      const float* z = &left.normalizers[(piece * heads + head) * rows];
      CHECK_ERROR(check::relative_error(z, wanted.normalizer.data(), size_t(config.head_dim)), 2e-7);
      for (int i = config.head_dim; i < rows; ++i) CHECK(z[i] == 0);
      const double* snapshot = &left.snapshots[(piece * heads + head) * config.terms() * size];
      Matrix actual;
      for (int i = 0; i < rows; ++i) {
        for (int j = 0; j < columns; ++j) {
          double x = snapshot[i * columns + j];
          if (config.terms() == 2) x += snapshot[size + size_t(i) * columns + j];
          if (i < config.head_dim && j < config.value_dim) {
            actual.push_back(x);
          } else {
            CHECK(x == 0);
          }
        }
      }
      CHECK_ERROR(check::relative_error(actual, wanted.matrix), config.element == Element::BFloat16 ? 4e-3 : bound);
    }
  }
}

// Padding of the sums that were made.
void check_padding(const Config& config, const Left& left, bool absorbed) {
  const int rows = padded(config.head_dim), columns = padded(config.value_dim), width = columns + (config.delta ? rows : 0);
  const int parts = config.whole_sums ? 1 : chunks(config.segment_length);
  for (size_t at = 0; at < left.sums.size(); ++at) {
    const int row = int(at / size_t(width)) % rows, column = int(at % size_t(width));
    const size_t border = at / size_t(width) / size_t(rows) / size_t(parts) / size_t(config.kv_heads);
    if (column >= columns && border == 0 && !absorbed) continue;  // no G before there is a memory
    const bool inside = row < config.head_dim && (column < columns ? column < config.value_dim
                                                                   : column - columns < config.head_dim);
    CHECK(inside ? std::isfinite(left.sums[at]) : left.sums[at] == 0);
  }
}

double matrix_bound(Element element) { return element == Element::Float32 ? 2e-6 : 1e-4; }

template <class T> bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

const Element kElements[] = {Element::Float32, Element::BFloat16, Element::Float16};

// Two full segments and a tail, then what fills the next; every piece of both calls.
void check_shape(const Config& config, Random& random) {
  try {
    Stream stream(config);
    const int n = config.segment_length;
    // The few numbers of a small M must not cancel: their errors are relative to what was added.
    const bool small = config.head_dim * config.value_dim < 256;
    const Inputs inputs = draw(config, 3 * n, random, small ? normal(1, 0.3) : normal(), small ? normal(3, 0.5) : normal());
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
  } catch (const check::Failure& failure) {
    throw check::Failure(name_of(config) + ": " + failure.what());
  }
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

}  // namespace
}  // namespace infini::cuda

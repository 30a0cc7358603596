// What the tests of the state kernels (key_sums, normalizers, sums, chain) share: streams that go on step by step
// through the launchers, beside a reference in float64.
//
// A Stream keeps what the host keeps of one stream. step() does for some streams together what the host does for a
// call: it lays out jobs, borders and workspace, launches the kernels, moves the open tail into the cache. Everything
// that a kernel has to write, and every row of a cache that it must not read, is NaN before.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "core/segments.h"
#include "device_array.h"
#include "launch.h"
#include "reference.h"

namespace infini::cuda::state {

using reference::Matrix;
using Random = std::mt19937_64;

template <class T> bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

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

inline std::string name_of(const Config& config) {
  static const char* const elements[] = {"float32", "bfloat16", "float16"};
  const auto number = [](int i) { return std::to_string(i); };
  return std::string(elements[int(config.element)]) + (config.delta ? " delta " : " linear ") +
         number(config.kv_heads) + " x " + number(config.head_dim) + " x " + number(config.value_dim) +
         ", N = " + number(config.segment_length);
}

// What fails in the body names the configuration.
inline void with_name(const Config& config, const std::function<void()>& body) {
  try {
    body();
  } catch (const check::Failure& failure) {
    throw check::Failure(name_of(config) + ": " + failure.what());
  }
}

// Draws number `index` of a row.
using Draw = std::function<double(Random&, int index)>;
inline Draw normal(double mean = 0, double deviation = 1) {
  return [=](Random& random, int) { return std::normal_distribution<double>(mean, deviation)(random); };
}

struct Inputs {
  Matrix key, value;  // [tokens][kv_heads][dim], as the stream's type holds them
};
inline Inputs draw(const Config& config, int tokens, Random& random, const Draw& key, const Draw& value) {
  const auto fill = [&](int dim, const Draw& draw_one) {
    Matrix numbers(size_t(tokens) * config.kv_heads * dim);
    for (size_t i = 0; i < numbers.size(); ++i) {
      numbers[i] = rounded(config.element, draw_one(random, int(i % size_t(dim))));
    }
    return numbers;
  };
  return {fill(config.head_dim, key), fill(config.value_dim, value)};
}
inline Inputs cut(const Config& config, const Inputs& inputs, int first, int count) {
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

  // Whether both memories are the same, bit for bit.
  bool operator==(const Stream& other) const {
    return same_bits(matrix.download(), other.matrix.download()) &&
           same_bits(normalizer.download(), other.normalizer.download());
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
inline void advance_reference(Stream& stream, const Inputs& inputs, int tokens) {
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
      const auto rows = [&](const Matrix& tensor, int dim) {
        return reference::head_of(tensor, config.kv_heads, dim, head, 0, config.segment_length);
      };
      reference::absorb(stream.wanted[size_t(head)], rows(stream.tail.key, config.head_dim),
                        rows(stream.tail.value, config.value_dim), config.delta);
    }
  }
}

// Rows 0..count - 1 of a cache from a tensor; the others NaN.
inline void fill_cache(ElementArray& cache, const Matrix& tensor, int kv_heads, int length, int dim, int count) {
  Matrix rows(size_t(kv_heads) * length * dim, NAN);
  for (int head = 0; head < kv_heads; ++head) {
    for (int position = 0; position < count; ++position) {
      const double* from = &tensor[(size_t(position) * kv_heads + head) * dim];
      std::copy(from, from + dim, &rows[(size_t(head) * length + position) * dim]);
    }
  }
  cache.upload(rows);
}

// What the kernels left in the workspace for one stream.
struct Left {
  std::vector<double> key_sums;
  std::vector<float> normalizers, sums;
  std::vector<double> snapshots;  // decoded; float16's two terms apart

  bool is_published_like(const Left& other) const {
    return same_bits(normalizers, other.normalizers) && same_bits(snapshots, other.snapshots);
  }
  bool operator==(const Left& other) const {
    return is_published_like(other) && same_bits(key_sums, other.key_sums) && same_bits(sums, other.sums);
  }
};

inline std::vector<Left> step(const std::vector<Stream*>& streams, const std::vector<Inputs>& inputs) {
  const Config& config = streams[0]->config;
  const int heads = config.kv_heads, rows = padded(config.head_dim), columns = padded(config.value_dim);
  const Shape shape = config.shape();

  std::vector<Job> jobs;
  std::vector<Place> borders;
  std::vector<ElementArray> tensors;
  std::vector<DeviceArray<float>> next_matrices;
  std::vector<DeviceArray<double>> next_normalizers;
  std::vector<std::vector<float>> old_matrices;
  std::vector<std::vector<double>> old_normalizers;
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
    old_matrices.push_back(stream.matrix.download());
    old_normalizers.push_back(stream.normalizer.download());
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

  // Sections first .. first + count of `sections` of the same size.
  const auto part = [](const auto& all, int first, int count, int sections) {
    const long size = sections > 0 ? long(all.size()) / sections : 0;
    return std::vector(all.begin() + first * size, all.begin() + (first + count) * size);
  };
  const Left all = {key_sums.download(), normalizers.download(), sums.download(), snapshots.download()};
  std::vector<Left> left;
  for (const Job& job : jobs) {
    left.push_back({part(all.key_sums, job.first_border, job.borders, border_count),
                    part(all.normalizers, job.first_piece, job.pieces, piece_count),
                    part(all.sums, job.first_border, job.borders, border_count),
                    part(all.snapshots, job.first_piece, job.pieces, piece_count)});
  }

  for (size_t i = 0; i < streams.size(); ++i) {
    Stream& stream = *streams[i];
    const Job& job = jobs[i];
    advance_reference(stream, inputs[i], job.tokens);
    if (!config.in_place) {
      CHECK(same_bits(stream.matrix.download(), old_matrices[i]));
      CHECK(same_bits(stream.normalizer.download(), old_normalizers[i]));
    }
    if (!config.in_place && job.borders > 0) {
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
inline Left step(Stream& stream, const Inputs& inputs) { return step(std::vector<Stream*>{&stream}, {inputs})[0]; }

// Everything that one stream's step has published, against the reference; padding exactly zero.
inline void check_published(const Stream& stream, const Left& left, double bound) {
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
inline void check_padding(const Config& config, const Left& left, bool absorbed) {
  const int rows = padded(config.head_dim), columns = padded(config.value_dim);
  const int width = columns + (config.delta ? rows : 0);
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

inline double matrix_bound(Element element) { return element == Element::Float32 ? 2e-6 : 1e-4; }

constexpr Element kElements[] = {Element::Float32, Element::BFloat16, Element::Float16};

}  // namespace infini::cuda::state

// What the kernels compute, in float64 and as plain as the formulas allow: one key/value head, one segment at a time.
//
// Matrices are row-major std::vector<double>: rows of head_dim (queries, keys) or value_dim (values, outputs) numbers.
//   attend    softmax(scale q k^T) v, causal within the segment; rotated first when `theta` is given
//   retrieve  sigma(q) M / (sigma(q) . z), exactly 0 where every product sigma(q)_i z_i is 0
//   absorb    M += sigma(k)^T (v - retrieve(k)), the linear rule without the retrieval; z += sum of sigma(k)
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace infini::cuda::reference {

using Matrix = std::vector<double>;

inline double sigma(double x) { return x > 0 ? x + 1 : x < -87 ? 0 : std::exp(x); }

// The memory of one key/value head.
struct Memory {
  int head_dim, value_dim;
  Matrix matrix;      // M: [head_dim][value_dim]
  Matrix normalizer;  // z: [head_dim]
  bool absorbed = false;

  Memory(int head_dim, int value_dim)
      : head_dim(head_dim), value_dim(value_dim), matrix(size_t(head_dim) * value_dim), normalizer(size_t(head_dim)) {}
};

// Turns the pairs (i, i + dim/2) of a row by position * theta^(-2i/dim).
inline void rotate(double* row, int dim, int position, double theta) {
  const int half = dim / 2;
  for (int i = 0; i < half; ++i) {
    const double angle = position * std::pow(theta, -2.0 * i / dim);
    const double cosine = std::cos(angle), sine = std::sin(angle);
    const double a = row[i], b = row[i + half];
    row[i] = a * cosine - b * sine;
    row[i + half] = b * cosine + a * sine;
  }
}

struct Attention {
  Matrix output;      // [queries][value_dim]
  double most_logit;  // the largest |logit|
};

// The last queries of a segment that holds as many keys and values as it has tokens so far: query r is at position
// keys - queries + r. theta 0: no rotation.
inline Attention attend(Matrix query, Matrix key, const Matrix& value, int head_dim, int value_dim, double scale,
                        double theta = 0) {
  const int queries = int(query.size() / size_t(head_dim)), keys = int(key.size() / size_t(head_dim));
  const int start = keys - queries;
  if (theta != 0) {
    for (int p = 0; p < keys; ++p) rotate(&key[size_t(p) * head_dim], head_dim, p, theta);
    for (int r = 0; r < queries; ++r) rotate(&query[size_t(r) * head_dim], head_dim, start + r, theta);
  }
  Attention result{Matrix(size_t(queries) * value_dim), 0};
  std::vector<double> weight(static_cast<size_t>(keys));
  for (int r = 0; r < queries; ++r) {
    const int visible = start + r + 1;
    double top = -std::numeric_limits<double>::infinity();
    for (int p = 0; p < visible; ++p) {
      double dot = 0;
      for (int i = 0; i < head_dim; ++i) dot += query[size_t(r) * head_dim + i] * key[size_t(p) * head_dim + i];
      weight[p] = dot * scale;
      top = std::max(top, weight[p]);
      result.most_logit = std::max(result.most_logit, std::abs(weight[p]));
    }
    double mass = 0;
    for (int p = 0; p < visible; ++p) mass += weight[p] = std::exp(weight[p] - top);
    for (int p = 0; p < visible; ++p) {
      for (int j = 0; j < value_dim; ++j) {
        result.output[size_t(r) * value_dim + j] += weight[p] / mass * value[size_t(p) * value_dim + j];
      }
    }
  }
  return result;
}

inline Matrix retrieve(const Memory& memory, const Matrix& query) {
  const int head_dim = memory.head_dim, value_dim = memory.value_dim;
  const size_t rows = query.size() / size_t(head_dim);
  Matrix result(rows * value_dim);
  if (!memory.absorbed) return result;
  std::vector<double> feature(static_cast<size_t>(head_dim));
  for (size_t r = 0; r < rows; ++r) {
    double mass = 0;
    for (int i = 0; i < head_dim; ++i) {
      feature[i] = sigma(query[r * head_dim + i]);
      mass += feature[i] * memory.normalizer[i];
    }
    if (mass == 0) continue;
    for (int i = 0; i < head_dim; ++i) {
      for (int j = 0; j < value_dim; ++j) {
        result[r * value_dim + j] += feature[i] / mass * memory.matrix[size_t(i) * value_dim + j];
      }
    }
  }
  return result;
}

// A full segment. Every token reads the memory as it was before the segment.
inline void absorb(Memory& memory, const Matrix& key, const Matrix& value, bool delta) {
  const int head_dim = memory.head_dim, value_dim = memory.value_dim;
  const size_t tokens = key.size() / size_t(head_dim);
  const Matrix read = delta ? retrieve(memory, key) : Matrix(tokens * value_dim);
  for (size_t t = 0; t < tokens; ++t) {
    for (int i = 0; i < head_dim; ++i) {
      const double feature = sigma(key[t * head_dim + i]);
      memory.normalizer[i] += feature;
      for (int j = 0; j < value_dim; ++j) {
        memory.matrix[size_t(i) * value_dim + j] += feature * (value[t * value_dim + j] - read[t * value_dim + j]);
      }
    }
  }
  memory.absorbed = true;
}

// Head `head` of a tensor [tokens][heads][dim], tokens first..first + count.
inline Matrix head_of(const Matrix& tensor, int heads, int dim, int head, int first, int count) {
  Matrix rows(size_t(count) * dim);
  for (int t = 0; t < count; ++t) {
    const double* from = &tensor[(size_t(first + t) * heads + head) * dim];
    std::copy(from, from + dim, &rows[size_t(t) * dim]);
  }
  return rows;
}

}  // namespace infini::cuda::reference

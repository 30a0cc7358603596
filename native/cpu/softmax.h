// From scores to weights, one block of keys after the other: a softmax that never has all its scores at once.
//
// Weights are powers of 2, relative to the largest score so far; a larger one rescales what was summed before. Most rows
// are spared that. By Cauchy and Schwarz no score exceeds |q| |k|, and while that keeps a row's exponents within kBound its
// weights are relative to a score of 0: no largest score is looked for, nothing is rescaled, no weight is too small to be a
// number. Sums that this makes too large show as infinities, and those that it makes too small are looked for in the end.
#pragma once

#include "cpu/matmul.h"
#include "cpu/tiles.h"
#include "cpu/vector_math.h"

extern "C" double exp(double);

namespace infini::cpu::INFINI_SIMD_LEVEL {

constexpr double kLog2E = 1.4426950408889634;
constexpr int kBound = 32;
constexpr int kLowestWeight = -125;  // 2 to this is still a normal number; less is no weight at all

// Lower than any score.
template <class T> constexpr T kLowest = kExact<T> ? T(-1.7976931348623157e308) : T(-3.402823466e38);

// A tile of query rows on its way through the key blocks. Row r owns row r of every array.
template <class T> struct Tile {
  int rows;
  int stride, columns;   // padded head_dim and value_dim
  T* query;              // [stride] rotated
  T* score;              // [kBlock] q . k
  float* weight;         // [kBlock] exp((score - top) scale) 2^power
  float* block;          // [columns] weight times values, of the blocks that sum lacks
  double* sum;           // [columns] the same, of all blocks before
  T* top;                // largest score so far, and 0 if the row was bounded once
  double* mass;          // [kLanes<double>] sum of weights so far, lane by lane
  double* rescale;       // what this block's new top makes of the old sum
  int64_t* sees;         // so many keys of the segment
  float* query_norm;     // |q|^2
  float* key_norm;       // the largest |k|^2 of the keys seen so far
  float* bounded_norm;   // the largest |k|^2 that keeps this row within its bound
  bool* pending;         // whether block holds something that sum lacks
  Packing packing;       // room for products on tiles; none: there are none
  PackedLeft packed_queries;
  int power;             // so that weights below 1 sum up to 1 at most: values as large as float32 holds do not overflow

  bool is_bounded(int row) const { return !kExact<T> && key_norm[row] <= bounded_norm[row]; }
};

inline float bounded_norm(float query_norm, double scale) {
  const double most = kBound / (scale * kLog2E);
  return float(most * most / query_norm);
}

// Scores as exponents of 2, at most 0.
inline Floats exponents(const double* scores, double top, double scale) {
  const double unit = scale * kLog2E;
  return narrow((load<double>(scores) - top) * unit, (load<double>(scores + kLanes<double>) - top) * unit);
}
inline Floats exponents(const float* scores, float top, double scale) {
  return (load<float>(scores) - top) * float(scale * kLog2E);
}

// A row's first `keys` scores as weights, none for those from `visible` on; and their sum, lane by lane.
template <bool masked, class Weights>
inline void make_weights(int keys, int visible, float* weight, float* sum, Weights weights_at) {
  Floats total{};
#pragma GCC unroll 8
  for (int key = 0; key < keys; key += kLanes<float>) {
    Floats weights = weights_at(key);
    if (masked) weights = lane_numbers() + key < visible ? weights : Floats{};
    store(weight + key, weights);
    total += weights;
  }
  store(sum, total);
}

template <bool masked, class T>
inline void exponentials(const Tile<T>& tile, double scale, int row, int keys, int visible, float* sum) {
  const T* score = tile.score + int64_t(row) * kBlock;
  float* weight = tile.weight + int64_t(row) * kBlock;
  const int power = tile.power;
  if constexpr (!kExact<T>) {
    if (tile.is_bounded(row)) {
      const float unit = float(scale * kLog2E);
      return make_weights<masked>(keys, visible, weight, sum, [&](int key) __attribute__((always_inline)) {
        return power_of_two(load<float>(score + key) * unit, power);
      });
    }
  }
  const T top = tile.top[row];
  const Floats lowest = broadcast(float(kLowestWeight - power));
  make_weights<masked>(keys, visible, weight, sum, [&](int key) __attribute__((always_inline)) {
    const Floats exponent = exponents(score + key, top, scale);
    const Floats weights = power_of_two(maximum(exponent, lowest), power);
    return exponent > lowest ? weights : Floats{};
  });
}

// A row's largest score so far, and what that makes of its sum; false when a scaled score is beyond float32's range.
// `keys`, a multiple of kPanel, bounds what any row of the tile sees of the block; this row sees the first `visible`.
template <class T> inline bool raise_top(const Tile<T>& tile, double scale, int row, int keys, int visible) {
  T* score = tile.score + int64_t(row) * kBlock;
  for (int key = visible; key < keys; ++key) score[key] = score[0];  // what is not seen may be anything
  if (tile.is_bounded(row)) {
    tile.top[row] = 0;
    tile.rescale[row] = 1;
    return true;
  }
  T lowest = 0;
  if (kExact<T>) {
    for (int key = 0; key < visible; ++key) lowest = score[key] < lowest ? score[key] : lowest;
  }
  Vector<T> high = load<T>(score);
#pragma GCC unroll 16
  for (int key = kLanes<T>; key < keys; key += kLanes<T>) high = maximum(high, load<T>(score + key));
  const T highest = reduce(high, [](T a, T b) { return a > b ? a : b; });
  const T top = highest > tile.top[row] ? highest : tile.top[row];
  tile.rescale[row] = tile.top[row] == kLowest<T> ? 0.0
                      : top > tile.top[row] ? exp((double(tile.top[row]) - double(top)) * scale)
                                            : 1.0;
  tile.top[row] = top;
  return !kExact<T> || (highest * scale <= 3.402823466e38 && lowest * scale >= -3.402823466e38);
}

// Turns one row of scores into weights.
template <class T> inline void weigh(const Tile<T>& tile, double scale, int row, int keys, int visible) {
  float total[kLanes<float>];
  if (visible == kBlock) {
    exponentials<false>(tile, scale, row, kBlock, kBlock, total);
  } else {
    exponentials<true>(tile, scale, row, keys, visible, total);
  }
  double* mass = tile.mass + int64_t(row) * kLanes<double>;
  store(mass, load<double>(mass) * tile.rescale[row] + (load<double>(total) + load<double>(total + kLanes<double>)));
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

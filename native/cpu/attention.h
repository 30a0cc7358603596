// Causal softmax attention inside the segment, one block of keys at a time (the scores of a tile never exceed
// kTileRows x kBlock), then the gate between it and what the memory retrieves.
//
// A softmax turns an absolute error of a score into a relative error of the output. float32 scores err by some 1e-7 of
// |q| |k| scale, so float32 does the rows where that is at most kOrdinaryLogit and float64 the others (retrieval.h:
// in_float_then_double). Weights are float32, and so are their products with values within a block of kBlock keys.
// Blocks lie on the segment's own grid, so a row's arithmetic is the same whether its keys came in this call or long
// before.
#pragma once

#include "cpu/retrieval.h"
#include "cpu/scores.h"
#include "cpu/tiles.h"

extern "C" double exp(double);

namespace infini::cpu::INFINI_SIMD_LEVEL {

constexpr double kOrdinaryLogit = 64;
constexpr double kLog2E = 1.4426950408889634;
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
  float* block;          // [columns] weight times values, this block
  double* sum;           // [columns] the same, all blocks so far
  T* top;                // largest score so far
  double* mass;          // sum of weights so far
  double* rescale;       // what this block's new top makes of the old sum
  int64_t* sees;         // so many keys of the segment
  float* query_norm;     // |q|^2
  float* key_norm;       // the largest |k|^2 of the keys seen so far
  Packing packing;       // room for products on tiles; none: there are none
  PackedLeft packed_queries;
  int power;             // so that a block's weights sum up to 1 at most: values as large as float32 holds do not overflow
};

template <class T> inline void rotate_query(const Forward& work, int64_t at, T* query) {
  const int half = work.dims.head_dim / 2;
  const int64_t panel = at / kPanel * half * kPanel + at % kPanel;
  for (int i = 0; i < half; ++i) {
    const double cosine = work.rotary->cosines[panel + i * kPanel], sine = work.rotary->sines[panel + i * kPanel];
    const double a = query[i], b = query[i + half];
    query[i] = T(a * cosine - b * sine);
    query[i + half] = T(b * cosine + a * sine);
  }
}

// Scores as exponents of 2, at most 0.
inline Floats exponents(const double* scores, double top, double scale) {
  const double unit = scale * kLog2E;
  return narrow((load<double>(scores) - top) * unit, (load<double>(scores + kLanes<double>) - top) * unit);
}
inline Floats exponents(const float* scores, float top, double scale) {
  return (load<float>(scores) - top) * float(scale * kLog2E);
}

// A row's first `keys` scores as weights, none for those from `visible` on. Returns their sum.
template <bool masked, class T>
inline float exponentials(const T* score, T top, double scale, int keys, int visible, int power, float* weight) {
  Floats total{};
#pragma GCC unroll 8
  for (int key = 0; key < keys; key += kLanes<float>) {
    const Floats exponent = exponents(score + key, top, scale), lowest = broadcast(float(kLowestWeight - power));
    Floats weights = power_of_two(maximum(exponent, lowest), power);
    weights = exponent > lowest ? weights : Floats{};
    if (masked) weights = lane_numbers() + key < visible ? weights : Floats{};
    store(weight + key, weights);
    total += weights;
  }
  return reduce(total, [](float a, float b) { return a + b; });
}

// A row's largest score so far, and what that makes of its sum; false when a scaled score is beyond float32's range.
// `keys`, a multiple of kPanel, bounds what any row of the tile sees of the block; this row sees the first `visible`.
template <class T> inline bool raise_top(const Tile<T>& tile, double scale, int row, int keys, int visible) {
  T* score = tile.score + int64_t(row) * kBlock;
  T lowest = 0;
  if (kExact<T>) {
    for (int key = 0; key < visible; ++key) lowest = score[key] < lowest ? score[key] : lowest;
  }
  for (int key = visible; key < keys; ++key) score[key] = score[0];
  Vector<T> high = load<T>(score);
#pragma GCC unroll 16
  for (int key = kLanes<T>; key < keys; key += kLanes<T>) high = maximum(high, load<T>(score + key));
  const T highest = reduce(high, [](T a, T b) { return a > b ? a : b; });
  const T top = highest > tile.top[row] ? highest : tile.top[row];
  tile.rescale[row] = tile.mass[row] == 0      ? 0.0
                      : top > tile.top[row] ? exp((double(tile.top[row]) - double(top)) * scale)
                                            : 1.0;
  tile.top[row] = top;
  return !kExact<T> || (highest * scale <= 3.402823466e38 && lowest * scale >= -3.402823466e38);
}

// Turns one row of scores into weights.
template <class T> inline void weigh(const Tile<T>& tile, double scale, int row, int keys, int visible) {
  const T* score = tile.score + int64_t(row) * kBlock;
  float* weight = tile.weight + int64_t(row) * kBlock;
  const float total = visible == kBlock
                          ? exponentials<false>(score, tile.top[row], scale, kBlock, kBlock, tile.power, weight)
                          : exponentials<true>(score, tile.top[row], scale, keys, visible, tile.power, weight);
  tile.mass[row] = tile.mass[row] * tile.rescale[row] + double(total);
}

// Calls body(values) once, with `keys` rows of padded(valueDim) values as they are to be multiplied.
template <class T, class Body>
inline void with_values(const Forward& work, const Tile<T>& tile, const Blocks<T>& blocks, int64_t first_key, int keys,
                        int rows, Body body) {
  const Dims& dims = work.dims;
  with_element(dims.element, [&](auto stored) {
    using S = typename decltype(stored)::type;
    const S* values = static_cast<const S*>(work.segment.values) + first_key * dims.value_dim;
    if (tile.columns == dims.value_dim && (sizeof(S) == sizeof(float) || rows <= 2 || tile.packing.left)) {
      return body(Right<S>{values, dims.value_dim});
    }
    for (int key = 0; key < keys; ++key) {
      float* row = blocks.values + int64_t(key) * tile.columns;
      for (int j = 0; j < dims.value_dim; ++j) row[j] = decltype(stored)::decode(values[int64_t(key) * dims.value_dim + j]);
      for (int j = dims.value_dim; j < tile.columns; ++j) row[j] = 0;
    }
    body(Right<float>{blocks.values, tile.columns});
  });
}

// Of the first `count` norms, none of which is negative.
inline float largest_norm(const float* norms, int count) {
  Floats largest{};
  for (int i = 0; i < count; i += kLanes<float>) {
    largest = maximum(largest, lane_numbers() + i < count ? load<float>(norms + i) : Floats{});
  }
  return reduce(largest, [](float a, float b) { return a > b ? a : b; });
}

// Rows that see a value too small for tiles, but not zero, are float64's.
inline uint16_t smallest_value(const uint16_t* values, int64_t count) {
  uint16_t smallest = 0xffff;
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t below = uint16_t((values[i] & 0x7fff) - 1);  // zero becomes the largest
    smallest = below < smallest ? below : smallest;
  }
  return smallest;
}
template <class T, class Visible>
inline void notice_small_values(const Forward& work, const Tile<T>& tile, int64_t first_key, int first_row, Visible visible) {
  const int64_t width = work.dims.value_dim;
  const uint16_t* values = static_cast<const uint16_t*>(work.segment.values) + first_key * width;
  auto small = [&](int row) { return smallest_value(values, visible(row) * width) < kSmallestTiledValue; };
  if (!small(tile.rows - 1)) return;
  for (int row = first_row; row < tile.rows; ++row) {
    if (small(row)) tile.key_norm[row] = __builtin_huge_valf();
  }
}

// One block of keys for all rows that can see it. Returns the first row whose score overflows, or -1.
template <class T>
inline int attend_block(const Forward& work, const Tile<T>& tile, const Blocks<T>& blocks, int64_t first_key) {
  int first_row = 0;
  while (tile.sees[first_row] <= first_key) ++first_row;
  auto visible = [&](int row) {
    const int64_t keys = tile.sees[row] - first_key;
    return keys < kBlock ? int(keys) : kBlock;
  };
  const int keys = visible(tile.rows - 1), rows = tile.rows - first_row;
  // On the diagonal a few rows at a time, which leave out the keys that none of them sees.
  constexpr int kFewRows = 2 * kMaxRows;
  const int step = visible(first_row) == kBlock || tile.packing.left ? rows : kFewRows;
  // Tiles take sixteen rows: those before the first do no harm.
  const int packed_row = first_row / 16 * 16, packed_rows = tile.rows - packed_row;
  auto in_groups = [&](auto body) {
    for (int row = first_row; row < tile.rows; row += step) {
      const int end = row + step < tile.rows ? row + step : tile.rows;
      body(row, end - row, visible(end - 1));
    }
  };

  int overflow = -1;
  float largest = 0;
  with_keys(work, blocks, first_key, padded(keys), rows, [&](auto panels) {
    if constexpr (!kExact<T>) {  // turned keys are as long as they were
      if (rows == 1 && !tile.packing.left) {
        return score_one_row(tile.query + int64_t(first_row) * tile.stride, panels, padded(keys), work.dims.head_dim,
                             tile.score + int64_t(first_row) * kBlock, blocks.norms);
      }
      key_norms(panels, padded(keys), work.dims.head_dim, blocks.norms);
#if defined(INFINI_TILES)
      if (tile.packing.left) {
        PackedLeft queries = tile.packed_queries;
        queries.data += packed_row * queries.depth;
        return multiply_packed(packed_rows, padded(keys), queries,
                               pack_right(padded(keys), work.dims.head_dim, panels, tile.packing.right),
                               tile.score + int64_t(packed_row) * kBlock, kBlock);
      }
#endif
    }
    in_groups([&](int row, int count, int seen) {
      score_rows(count, padded(seen), work.dims.head_dim, Left<T>{tile.query + int64_t(row) * tile.stride, tile.stride},
                 panels, tile.score + int64_t(row) * kBlock);
    });
  });
  in_groups([&](int first, int count, int seen) {
    for (int row = first; row < first + count; ++row) {
      if (!raise_top(tile, work.scale, row, padded(seen), visible(row)) && overflow < 0) overflow = row;
      if constexpr (!kExact<T>) {
        if (row == first_row || visible(row) != visible(row - 1)) largest = largest_norm(blocks.norms, visible(row));
        tile.key_norm[row] = largest > tile.key_norm[row] ? largest : tile.key_norm[row];
      }
    }
    for (int row = first; row < first + count; ++row) weigh(tile, work.scale, row, padded(seen), visible(row));
  });
  if (tile.packing.left) notice_small_values(work, tile, first_key, first_row, visible);
  with_values(work, tile, blocks, first_key, keys, rows, [&](auto values) {
    if (tile.packing.left) {
      return multiply(tile.packing, packed_rows, tile.columns, keys,
                      Left<float>{tile.weight + int64_t(packed_row) * kBlock, kBlock}, values,
                      tile.block + int64_t(packed_row) * tile.columns, tile.columns);
    }
    in_groups([&](int row, int count, int seen) {
      matmul(count, tile.columns, seen, Left<float>{tile.weight + int64_t(row) * kBlock, kBlock}, values,
             tile.block + int64_t(row) * tile.columns, tile.columns);
    });
  });
  for (int row = first_row; row < tile.rows; ++row) {
    double* sum = tile.sum + int64_t(row) * tile.columns;
    const float* block = tile.block + int64_t(row) * tile.columns;
    for (int j = 0; j < tile.columns; j += kLanes<double>) {
      store(sum + j, load<double>(sum + j) * tile.rescale[row] + load<double>(block + j));
    }
  }
  return overflow;
}

// Whether float32 scores are good enough. Both norms are at most 2^120 where it says so, hence every product q . k finite.
inline bool is_ordinary(float query_norm, float key_norm, double scale) {
  return query_norm <= 0x1p120f && key_norm <= 0x1p120f &&
         double(query_norm) * double(key_norm) * scale * scale <= kOrdinaryLogit * kOrdinaryLogit;
}

template <class T> inline int64_t forward_rows(const Forward& work, void* memory_block, bool* trusted) {
  const Dims& dims = work.dims;
  Workspace workspace(memory_block);
  Tile<T> tile;
  tile.rows = int(work.queries.end - work.queries.begin);
  tile.stride = padded(dims.head_dim);
  tile.columns = padded(dims.value_dim);
  tile.query = workspace.take<T>(size_t(kTileRows) * tile.stride);
  tile.score = workspace.take<T>(size_t(kTileRows) * kBlock);
  tile.weight = workspace.take<float>(size_t(kTileRows) * kBlock);
  tile.block = workspace.take<float>(size_t(kTileRows) * tile.columns);
  tile.sum = workspace.take<double>(size_t(kTileRows) * tile.columns);
  tile.top = workspace.take<T>(kTileRows);
  tile.mass = workspace.take<double>(kTileRows);
  tile.rescale = workspace.take<double>(kTileRows);
  tile.sees = workspace.take<int64_t>(kTileRows);
  tile.query_norm = workspace.take<float>(kTileRows);
  tile.key_norm = workspace.take<float>(kTileRows);
  T* features = workspace.take<T>(size_t(kTileRows) * tile.stride);
  T* retrieved = workspace.take<T>(size_t(kTileRows) * tile.columns);
  Blocks<T> blocks;
  tile.power = -6;
  while (work.segment.length >> -tile.power > 1 && tile.power > -24) --tile.power;
  blocks.keys = workspace.take<float>(size_t(kBlock) * dims.head_dim);
  blocks.rotated_keys = workspace.take<T>(size_t(kBlock) * dims.head_dim);
  blocks.norms = workspace.take<float>(kBlock);
  blocks.values = workspace.take<float>(size_t(kBlock) * tile.columns);
  const bool on_tiles = tiled<T>(dims.element);
  const TileScope scope(on_tiles);
  const int deepest = tile.stride > kBlock ? tile.stride : kBlock, widest = tile.columns > kBlock ? tile.columns : kBlock;
  tile.packing = take_packing(workspace, on_tiles, deepest, widest);

  for (int row = 0; row < tile.rows; ++row) {
    const int64_t source = work.queries.begin + row;
    T* query = tile.query + int64_t(row) * tile.stride;
    T* feature = features + int64_t(row) * tile.stride;
    decode(dims.element, work.queries.data, row_offset(work.queries, dims.head_dim, source), dims.head_dim, query);
    for (int i = dims.head_dim; i < tile.stride; ++i) query[i] = 0;
    if constexpr (!kExact<T>) {
      Floats squares{};
      for (int i = 0; i < tile.stride; i += kLanes<float>) squares += load<float>(query + i) * load<float>(query + i);
      tile.query_norm[row] = reduce(squares, [](float a, float b) { return a + b; });
      tile.key_norm[row] = 0;
    }
    if (work.memory) {  // it takes q before its rotation
      for (int i = 0; i < tile.stride; i += kLanes<T>) store(feature + i, sigma(load<T>(query + i)));
      for (int i = dims.head_dim; i < tile.stride; ++i) feature[i] = 0;
    }
    tile.sees[row] = work.start + source / work.queries.group + 1;
    if (work.rotary) rotate_query(work, tile.sees[row] - 1, query);
    for (int j = 0; j < tile.columns; ++j) tile.sum[int64_t(row) * tile.columns + j] = 0;
    tile.top[row] = kLowest<T>;
    tile.mass[row] = 0;
  }

#if defined(INFINI_TILES)
  if constexpr (!kExact<T>) {  // as they came they are bfloat16
    if (on_tiles) {
      tile.packed_queries = pack_left(work.rotary ? 2 : 1, tile.rows, dims.head_dim, tile.query, tile.stride,
                                      take_packing(workspace, true, tile.stride, 0).left);
    }
  }
#endif

  int bad = -1;  // first row in overflow
  for (int64_t key = 0; key < tile.sees[tile.rows - 1]; key += kBlock) {
    const int row = attend_block(work, tile, blocks, key);
    if (row >= 0 && (bad < 0 || row < bad)) bad = row;
  }
  if (work.memory) {
    read_memory(dims, *work.memory, tile.rows, features, tile.stride, retrieved, trusted, workspace, tile.packing);
  }

  const Rows place{nullptr, work.output_stride, work.queries.group, 0, 0};
  for (int row = 0; row < tile.rows; ++row) {
    if constexpr (!kExact<T>) {
      if (!is_ordinary(tile.query_norm[row], tile.key_norm[row], work.scale)) trusted[row] = false;
    }
    const int head = int((work.queries.begin + row) % work.queries.group);
    const double local = work.gate_rest[head] / tile.mass[row], gate = work.gate[head];
    double* sum = tile.sum + int64_t(row) * tile.columns;
    const T* read = retrieved + int64_t(row) * tile.columns;
    for (int j = 0; j < tile.columns; j += kLanes<double>) {
      Doubles mixed = load<double>(sum + j) * local;
      if (work.memory) mixed += gate * load<double>(read + j);
      store(sum + j, mixed);
    }
    const int64_t at = row_offset(place, dims.value_dim, work.queries.begin + row);
    if (encode(dims.element, sum, dims.value_dim, work.output, at)) continue;
    if (!kExact<T>) trusted[row] = false;
    if (bad < 0 || row < bad) bad = row;
  }
  return bad < 0 ? -1 : (work.queries.begin + bad) / work.queries.group;
}

inline int64_t forward(const Forward& work, void* block) {
  // What float32 loses of tiny products and norms, a scale beyond this would make visible.
  return in_float_then_double(work, work.scale <= 0x1p10, [&](auto type, const Forward& rows, bool* trusted) {
    return forward_rows<decltype(type)>(rows, block, trusted);
  });
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

// Causal softmax attention inside the segment, one block of keys at a time (the scores of a tile never exceed
// kTileRows x kBlock), then the gate between it and what the memory retrieves.
//
// Scores are float64: a softmax turns an absolute error of a score into a relative error of the output, and at
// scores of 1000 one float32 ulp is 6e-5. Weights and their products with values are float32 within a block of
// kBlock keys and float64 across blocks. Blocks lie on the segment's own grid, so a row's arithmetic is the same
// whether its keys came in this call or long before.
#pragma once

#include "cpu/retrieval.h"

extern "C" double exp(double);

namespace infini::cpu::INFINI_SIMD_LEVEL {

// A tile of query rows on its way through the key blocks. Row r owns row r of every array.
struct Tile {
  int rows;
  int stride, columns;   // padded head_dim and value_dim
  double* query;         // [stride] rotated
  double* score;         // [kBlock] q . k, before the scale
  float* weight;         // [kBlock] exp(score - top) / kBlock
  float* block;          // [columns] weight times values, this block
  double* sum;           // [columns] the same, all blocks so far
  double* top;           // largest score so far
  double* mass;          // sum of weights so far
  double* rescale;       // what this block's new top makes of the old sum
};

struct Blocks {
  float* keys;           // one panel
  double* rotated_keys;  // one panel
  float* values;         // [kBlock][columns]
};

inline int64_t position(const Forward& work, int64_t row) { return work.start + row / work.queries.group; }

inline void rotate_query(const Forward& work, int64_t at, double* query) {
  const int half = work.dims.head_dim / 2;
  const int64_t panel = at / kPanel * half * kPanel + at % kPanel;
  for (int i = 0; i < half; ++i) {
    const double cosine = work.rotary->cosines[panel + i * kPanel], sine = work.rotary->sines[panel + i * kPanel];
    const double a = query[i], b = query[i + half];
    query[i] = a * cosine - b * sine;
    query[i + half] = b * cosine + a * sine;
  }
}

// Scores of all rows against one panel of 16 keys.
inline void score_panel(const Forward& work, const Tile& tile, const Blocks& blocks, int first_row, int64_t first_key,
                        double* score) {
  const Dims& dims = work.dims;
  const int rows = tile.rows - first_row;
  const double* query = tile.query + int64_t(first_row) * tile.stride;
  double* to = score + int64_t(first_row) * kBlock;
  const int64_t rest = work.segment.length - first_key;
  const int width = rest < kPanel ? int(rest) : kPanel;
  const int64_t offset = first_key * dims.head_dim;

  if (dims.element == Element::F32 && width == kPanel && !work.rotary) {
    matmul(rows, kPanel, dims.head_dim, query, tile.stride, static_cast<const float*>(work.segment.keys) + offset,
           kPanel, to, kBlock);
    return;
  }
  for (int i = 0; i < dims.head_dim; ++i) {
    float* lane = blocks.keys + i * kPanel;
    decode(dims.element, work.segment.keys, offset + int64_t(i) * width, width, lane);
    for (int key = width; key < kPanel; ++key) lane[key] = 0;
  }
  if (!work.rotary) {
    matmul(rows, kPanel, dims.head_dim, query, tile.stride, blocks.keys, kPanel, to, kBlock);
    return;
  }
  const int half = dims.head_dim / 2;
  const double* cosines = work.rotary->cosines + first_key * half;
  const double* sines = work.rotary->sines + first_key * half;
  for (int i = 0; i < half * kPanel; i += kLanes<double>) {
    const Doubles a = load<double>(blocks.keys + i), b = load<double>(blocks.keys + half * kPanel + i);
    const Doubles cosine = load<double>(cosines + i), sine = load<double>(sines + i);
    store(blocks.rotated_keys + i, a * cosine - b * sine);
    store(blocks.rotated_keys + half * kPanel + i, b * cosine + a * sine);
  }
  matmul(rows, kPanel, dims.head_dim, query, tile.stride, blocks.rotated_keys, kPanel, to, kBlock);
}

// Turns one row of scores into weights; false when a scaled score is beyond float32's range. `keys`, a multiple of
// kPanel, bounds what any row of the tile sees of the block; this row sees the first `visible` of them.
inline bool weigh(const Tile& tile, double scale, int row, int keys, int visible) {
  double* score = tile.score + int64_t(row) * kBlock;
  float* weight = tile.weight + int64_t(row) * kBlock;
  for (int key = visible; key < keys; ++key) score[key] = score[0];

  Doubles high = load<double>(score), low = high;
  for (int key = kLanes<double>; key < keys; key += kLanes<double>) {
    const Doubles scores = load<double>(score + key);
    high = maximum(high, scores);
    low = minimum(low, scores);
  }
  const double highest = reduce(high, [](double a, double b) { return a > b ? a : b; });
  const double lowest = reduce(low, [](double a, double b) { return a < b ? a : b; });
  const double top = highest > tile.top[row] ? highest : tile.top[row];

  Floats total{};
  for (int key = 0; key < keys; key += kLanes<float>) {
    const Doubles first = load<double>(score + key), second = load<double>(score + key + kLanes<double>);
    Floats weights = exp_over_block(narrow((first - top) * scale, (second - top) * scale));
    if (key + kLanes<float> > visible) {
      store(weight + key, weights);
      for (int hidden = visible > key ? visible : key; hidden < key + kLanes<float>; ++hidden) weight[hidden] = 0;
      weights = load<float>(weight + key);
    }
    store(weight + key, weights);
    total += weights;
  }

  tile.rescale[row] = top > tile.top[row] ? exp((tile.top[row] - top) * scale) : 1.0;
  tile.mass[row] = tile.mass[row] * tile.rescale[row] + double(reduce(total, [](float a, float b) { return a + b; }));
  tile.top[row] = top;
  return highest * scale <= 3.402823466e38 && lowest * scale >= -3.402823466e38;
}

inline const float* block_values(const Forward& work, const Tile& tile, const Blocks& blocks, int64_t first_key,
                                 int keys) {
  const Dims& dims = work.dims;
  const int64_t offset = first_key * dims.value_dim;
  if (dims.element == Element::F32 && tile.columns == dims.value_dim) {
    return static_cast<const float*>(work.segment.values) + offset;
  }
  for (int key = 0; key < keys; ++key) {
    float* row = blocks.values + int64_t(key) * tile.columns;
    decode(dims.element, work.segment.values, offset + int64_t(key) * dims.value_dim, dims.value_dim, row);
    for (int j = dims.value_dim; j < tile.columns; ++j) row[j] = 0;
  }
  return blocks.values;
}

// One block of keys for all rows that can see it. Returns the first row whose score overflows, or -1.
inline int attend_block(const Forward& work, const Tile& tile, const Blocks& blocks, int64_t first_key) {
  int first_row = 0;
  while (position(work, work.queries.begin + first_row) < first_key) ++first_row;
  const int64_t seen = position(work, work.queries.end - 1) + 1 - first_key;
  const int keys = seen < kBlock ? int(seen) : kBlock;

  const int scored = padded(keys);
  for (int key = 0; key < scored; key += kPanel) {
    score_panel(work, tile, blocks, first_row, first_key + key, tile.score + key);
  }
  int overflow = -1;
  for (int row = first_row; row < tile.rows; ++row) {
    const int64_t visible = position(work, work.queries.begin + row) + 1 - first_key;
    if (!weigh(tile, work.scale, row, scored, visible < kBlock ? int(visible) : kBlock) && overflow < 0) overflow = row;
  }
  const float* values = block_values(work, tile, blocks, first_key, keys);
  matmul(tile.rows - first_row, tile.columns, keys, tile.weight + int64_t(first_row) * kBlock, kBlock, values,
         tile.columns, tile.block + int64_t(first_row) * tile.columns, tile.columns);
  for (int row = first_row; row < tile.rows; ++row) {
    double* sum = tile.sum + int64_t(row) * tile.columns;
    const float* block = tile.block + int64_t(row) * tile.columns;
    for (int j = 0; j < tile.columns; j += kLanes<double>) {
      store(sum + j, load<double>(sum + j) * tile.rescale[row] + load<double>(block + j));
    }
  }
  return overflow;
}

inline int64_t forward(const Forward& work, void* memory_block) {
  const Dims& dims = work.dims;
  Workspace workspace(memory_block);
  Tile tile;
  tile.rows = int(work.queries.end - work.queries.begin);
  tile.stride = padded(dims.head_dim);
  tile.columns = padded(dims.value_dim);
  tile.query = workspace.take<double>(size_t(kTileRows) * tile.stride);
  tile.score = workspace.take<double>(size_t(kTileRows) * kBlock);
  tile.weight = workspace.take<float>(size_t(kTileRows) * kBlock);
  tile.block = workspace.take<float>(size_t(kTileRows) * tile.columns);
  tile.sum = workspace.take<double>(size_t(kTileRows) * tile.columns);
  tile.top = workspace.take<double>(kTileRows);
  tile.mass = workspace.take<double>(kTileRows);
  tile.rescale = workspace.take<double>(kTileRows);
  double* features = workspace.take<double>(size_t(kTileRows) * tile.stride);
  double* retrieved = workspace.take<double>(size_t(kTileRows) * tile.columns);
  Blocks blocks;
  blocks.keys = workspace.take<float>(size_t(kPanel) * dims.head_dim);
  blocks.rotated_keys = workspace.take<double>(size_t(kPanel) * dims.head_dim);
  blocks.values = workspace.take<float>(size_t(kBlock) * tile.columns);

  for (int row = 0; row < tile.rows; ++row) {
    const int64_t source = work.queries.begin + row;
    double* query = tile.query + int64_t(row) * tile.stride;
    double* feature = features + int64_t(row) * tile.stride;
    decode(dims.element, work.queries.data, row_offset(work.queries, dims.head_dim, source), dims.head_dim, query);
    for (int i = dims.head_dim; i < tile.stride; ++i) query[i] = 0;
    for (int i = 0; i < tile.stride; ++i) feature[i] = query[i];  // the memory takes q before its rotation
    if (work.memory) apply_sigma(feature, dims.head_dim);
    if (work.rotary) rotate_query(work, position(work, source), query);
    for (int j = 0; j < tile.columns; ++j) tile.sum[int64_t(row) * tile.columns + j] = 0;
    tile.top[row] = -1.7976931348623157e308;
    tile.mass[row] = 0;
  }

  int bad = -1;  // first row in overflow
  const int64_t last = position(work, work.queries.end - 1);
  for (int64_t key = 0; key <= last; key += kBlock) {
    const int row = attend_block(work, tile, blocks, key);
    if (row >= 0 && (bad < 0 || row < bad)) bad = row;
  }
  if (work.memory) read_memory(dims, *work.memory, tile.rows, features, tile.stride, retrieved, workspace);

  const Rows place{nullptr, work.output_stride, work.queries.group, 0, 0};
  for (int row = 0; row < tile.rows; ++row) {
    const int head = int((work.queries.begin + row) % work.queries.group);
    const double local = work.gate_rest[head] / tile.mass[row];
    double* sum = tile.sum + int64_t(row) * tile.columns;
    const double* read = retrieved + int64_t(row) * tile.columns;
    for (int j = 0; j < tile.columns; ++j) {
      sum[j] = sum[j] * local + (work.memory ? work.gate[head] * read[j] : 0.0);
    }
    const int64_t at = row_offset(place, dims.value_dim, work.queries.begin + row);
    if (!encode(dims.element, sum, dims.value_dim, work.output, at) && (bad < 0 || row < bad)) bad = row;
  }
  return bad < 0 ? -1 : (work.queries.begin + bad) / work.queries.group;
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

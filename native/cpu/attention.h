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
#include "cpu/softmax.h"

namespace infini::cpu::INFINI_SIMD_LEVEL {

constexpr double kOrdinaryLogit = 64;
constexpr int kGathered = 4;  // blocks whose weighted values are summed in float32, before float64 takes them

template <int write> inline void prefetch_row(Element element, const void* data, int64_t offset, int count) {
  const int64_t size = element == Element::F32 ? 4 : 2;
  const char* from = static_cast<const char*>(data) + offset * size;
  for (int64_t at = 0; at < count * size; at += 64) __builtin_prefetch(from + at, write);
}

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

// Adds to a row's sum what its blocks have made since the last time.
template <class T> inline void take_block(const Tile<T>& tile, int row, double rescale) {
  double* sum = tile.sum + int64_t(row) * tile.columns;
  const float* block = tile.block + int64_t(row) * tile.columns;
  for (int j = 0; j < tile.columns; j += kLanes<double>) {
    store(sum + j, load<double>(sum + j) * rescale + load<double>(block + j));
  }
  tile.pending[row] = false;
}
template <class T> inline void clear_block(const Tile<T>& tile, int row) {
  float* block = tile.block + int64_t(row) * tile.columns;
  for (int j = 0; j < tile.columns; j += kLanes<float>) store(block + j, Floats{});
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

  // Whether this block's weighted values go to those of the block before; so for all rows alike, and on any cut.
  const int64_t number = first_key / kBlock;
  const bool gathers = !kExact<T> && !tile.packing.left, joins = gathers && number % kGathered > 0;
  auto takes = [&](int row) {
    return !gathers || !tile.is_bounded(row) || number % kGathered == kGathered - 1 || visible(row) < kBlock ||
           tile.sees[row] == first_key + kBlock;
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
      if constexpr (!kExact<T>) {
        if (row == first_row || visible(row) != visible(row - 1)) largest = largest_norm(blocks.norms, visible(row));
        tile.key_norm[row] = largest > tile.key_norm[row] ? largest : tile.key_norm[row];
      }
      if (!raise_top(tile, work.scale, row, padded(seen), visible(row)) && overflow < 0) overflow = row;
      if (tile.pending[row] && tile.rescale[row] != 1) {  // no longer bounded
        take_block(tile, row, 1);
        clear_block(tile, row);
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
      const Left<float> weights{tile.weight + int64_t(row) * kBlock, kBlock};
      float* block = tile.block + int64_t(row) * tile.columns;
      if (joins) return matmul<true>(count, tile.columns, seen, weights, values, block, tile.columns);
      matmul(count, tile.columns, seen, weights, values, block, tile.columns);
    });
  });
  for (int row = first_row; row < tile.rows; ++row) {
    tile.pending[row] = true;
    if (!takes(row)) continue;
    take_block(tile, row, tile.rescale[row]);
    if (gathers && number % kGathered < kGathered - 1) clear_block(tile, row);
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
  tile.mass = workspace.take<double>(size_t(kTileRows) * kLanes<double>);
  tile.rescale = workspace.take<double>(kTileRows);
  tile.sees = workspace.take<int64_t>(kTileRows);
  tile.query_norm = workspace.take<float>(kTileRows);
  tile.key_norm = workspace.take<float>(kTileRows);
  tile.bounded_norm = workspace.take<float>(kTileRows);
  tile.pending = workspace.take<bool>(kTileRows);
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

  // Rows of one head lie a token apart: no processor sees them coming.
  const Rows place{nullptr, work.output_stride, work.queries.group, 0, 0};
  for (int row = 0; row < tile.rows; ++row) {
    prefetch_row<0>(dims.element, work.queries.data, row_offset(work.queries, dims.head_dim, work.queries.begin + row), dims.head_dim);
  }
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
      tile.bounded_norm[row] = bounded_norm(tile.query_norm[row], work.scale);
    }
    if (work.memory) {  // it takes q before its rotation
      for (int i = 0; i < tile.stride; i += kLanes<T>) store(feature + i, sigma(load<T>(query + i)));
      for (int i = dims.head_dim; i < tile.stride; ++i) feature[i] = 0;
    }
    tile.sees[row] = work.start + source / work.queries.group + 1;
    if (work.rotary) rotate_query(work, tile.sees[row] - 1, query);
    for (int j = 0; j < tile.columns; ++j) tile.sum[int64_t(row) * tile.columns + j] = 0;
    tile.top[row] = kLowest<T>;
    store(tile.mass + row * kLanes<double>, Doubles{});
    tile.pending[row] = false;
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

  for (int row = 0; row < tile.rows; ++row) {
    prefetch_row<1>(dims.element, work.output, row_offset(place, dims.value_dim, work.queries.begin + row), dims.value_dim);
  }
  for (int row = 0; row < tile.rows; ++row) {
    if constexpr (!kExact<T>) {
      if (!is_ordinary(tile.query_norm[row], tile.key_norm[row], work.scale)) trusted[row] = false;
    }
    const int head = int((work.queries.begin + row) % work.queries.group);
    const double mass = reduce(load<double>(tile.mass + row * kLanes<double>), [](double a, double b) { return a + b; });
    const double local = work.gate_rest[head] / mass, gate = work.gate[head];
    double* sum = tile.sum + int64_t(row) * tile.columns;
    const T* read = retrieved + int64_t(row) * tile.columns;
    Doubles largest{};
    for (int j = 0; j < tile.columns; j += kLanes<double>) {
      const Doubles seen = load<double>(sum + j);
      largest = maximum(largest, maximum(seen, -seen));
      Doubles mixed = seen * local;
      if (work.memory) mixed += gate * load<double>(read + j);
      store(sum + j, mixed);
    }
    if constexpr (!kExact<T>) {
      if (reduce(largest, [](double a, double b) { return a > b ? a : b; }) < kSmallestResult) trusted[row] = false;
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

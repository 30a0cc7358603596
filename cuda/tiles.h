// Tile shapes and pipeline depths: every tuning decision of the kernels, with its reason, and the shared memory it costs.
//
// kDim is a bucket, 64, 128 or 256: head_dim and value_dim are at most kDim and padded to it in shared memory.
// Each instance stays within kSharedLimit, what compute capability 8.6, 8.9 and 12.0 offer one block.
#pragma once

#include "launch.h"

namespace infini::cuda {

constexpr int kSharedLimit = 99 * 1024;

struct ForwardTile {
  int rows;     // query rows of a block
  int strips;   // of 16 rows, for each warp
  int keys;     // keys of a step
  int buffers;  // tiles of keys or values in shared memory: one in use, the others loading
  int blocks;   // that share a multiprocessor, as far as registers decide
  __host__ __device__ constexpr int threads() const { return rows / (16 * strips) * 32; }
  __host__ __device__ constexpr int shared_bytes(int dim, int element_bytes) const {
    return (rows + buffers * keys) * dim * element_bytes;
  }
};

// A warp of 32 rows feeds four products with every fragment of keys or values that it reads from shared memory; with 16
// rows that reading, not the tensor cores, would be the limit. 32 rows of 128 columns are 128 accumulators beside 64
// scores: all registers of a thread at two blocks a multiprocessor. Wider rows get strips of 16 and shorter steps.
// Two blocks share a multiprocessor (80 KB each on compute capability 8.0), so that one multiplies while the other
// exponentiates; of 64 columns three do. Three buffers: while keys are multiplied the next step's keys load.
// 128 rows in a block do not waste what lies above the diagonal: each warp skips the keys that none of its rows sees.
__host__ __device__ constexpr ForwardTile forward_tile(int dim, int element_bytes) {
  const int row_bytes = dim * element_bytes;
  if (element_bytes == 2 && dim <= 64) return {128, 2, 64, 3, 3};
  if (element_bytes == 2 && dim <= 128) return {128, 2, 64, 3, 2};
  if (row_bytes <= 256) return {64, 1, 64, 3, 2};
  if (row_bytes <= 512) return {64, 1, 32, 3, 2};
  return {32, 1, 16, 3, 2};
}

// The bytes of a row of Rows (kernels/rows.cuh).
__host__ __device__ constexpr int row_bytes(int columns, int element_bytes) {
  return (columns + 15) / 16 * 16 * element_bytes + 16;
}

// Decoding is bound by bytes: what counts is how many of them are under way. A step is 16 positions for each warp: 32 KB
// of 128 + 128 dimensions of 16 bits, loaded while the step before is worked on; three such blocks share a multiprocessor
// of compute capability 8.0 or 9.0, two one of the smaller kinds. A block must read some 64 KB, or its beginning and its
// end, microseconds of waiting, would leave the memory idle. But no more than that in a stream with few heads, which is to
// fill a device by itself: 128 blocks, one for each multiprocessor. With eight heads and more 16 splits are enough, for
// every split costs its sums. Rows of M, float32, are read like positions, 32 KB a split.
struct DecodeTile {
  static constexpr int kThreads = 128, kRows = 16, kColumns = 128;  // of a block; of a warp's accumulators
  int rows, row_blocks;            // query rows of a block at most, blocks that share a kv head
  int parts;                       // warps that have their own positions; the others share them and have their own columns
  int keys, steps, key_splits;     // positions of a step, steps of a split, splits of a full segment
  int memory_rows, memory_splits;  // rows of M of a split, splits of M
  int splits;                      // of M, then of the segment
  int staged_bytes, query_bytes;   // shared memory
  int64_t record_floats;           // scratch of one row block
  constexpr int shared_bytes() const { return staged_bytes + query_bytes; }
};

constexpr DecodeTile decode_tile(const Shape& shape, int most_tokens) {
  constexpr int kSplitBytes = 64 * 1024, kMemoryBytes = 32 * 1024;
  const auto most = [](int a, int b) { return a > b ? a : b; };
  const int element_bytes = shape.element == Element::Float32 ? 4 : 2;
  DecodeTile tile{};
  const int all_rows = most_tokens * (shape.heads / shape.kv_heads);
  tile.rows = all_rows < DecodeTile::kRows ? all_rows : DecodeTile::kRows;
  tile.row_blocks = (all_rows + tile.rows - 1) / tile.rows;
  tile.parts = shape.value_dim <= DecodeTile::kColumns ? 4 : 2;

  const int position_bytes = (padded(shape.head_dim) + padded(shape.value_dim)) * element_bytes;
  tile.keys = 16 * tile.parts;
  if (tile.keys * position_bytes > kSplitBytes) tile.keys /= 2;  // wide float32: some warps have none
  const int step_bytes = tile.keys * position_bytes;
  const int all_steps = (shape.segment_length + tile.keys - 1) / tile.keys;
  const int most_splits = shape.kv_heads < 8 ? 128 / shape.kv_heads : 16;
  tile.steps = most((kSplitBytes + step_bytes - 1) / step_bytes, (all_steps + most_splits - 1) / most_splits);
  tile.key_splits = (all_steps + tile.steps - 1) / tile.steps;
  for (tile.memory_rows = 64; tile.memory_rows * padded(shape.value_dim) * 4 > kMemoryBytes;) tile.memory_rows /= 2;
  tile.memory_splits = (shape.head_dim + tile.memory_rows - 1) / tile.memory_rows;
  tile.splits = tile.memory_splits + tile.key_splits;
  tile.record_floats = (int64_t(tile.rows) * (2 * tile.key_splits + tile.splits * shape.value_dim) + 3) / 4 * 4;

  const int step = tile.keys * (row_bytes(shape.head_dim, element_bytes) + row_bytes(shape.value_dim, element_bytes));
  const int matrix = tile.memory_rows * row_bytes(shape.value_dim, 4);
  const int sums = tile.parts * tile.rows * padded(shape.value_dim) * 4, weights = tile.rows * tile.splits * 4;
  tile.staged_bytes = (most(most(step, matrix), most(sums, weights)) + 15) / 16 * 16;
  const int terms = element_bytes == 2 ? 2 : 1, features = terms * row_bytes(tile.memory_rows, element_bytes);
  const int turned = terms * row_bytes(2 * padded(shape.head_dim / 2), element_bytes);
  const int queries = shape.rotary ? turned : row_bytes(shape.head_dim, element_bytes);
  tile.query_bytes = DecodeTile::kRows * most(queries, features);
  return tile;
}

struct SumsTile {
  static constexpr int kWarpColumns = 64;
  int tokens;     // of a step
  int slab;       // columns of B or of G; all kDim rows
  int warp_rows;  // accumulated by each warp, of kWarpColumns
  int blocks;     // that share a multiprocessor, as far as registers decide, for 16-bit streams
  constexpr int threads(int dim) const { return dim / warp_rows * (slab / kWarpColumns) * 32; }
  // Two steps of keys and values; then what 16 bits do not hold: the low halves of sigma and of float16 values.
  constexpr int shared_bytes(int dim, Element element) const {
    const int step = tokens * (dim + slab) * (element == Element::Float32 ? 4 : 2);
    return 2 * step + (element == Element::Float32 ? 0 : tokens * 2 * (element == Element::Float16 ? dim + slab : dim));
  }
};

// B and G in blocks of their own: a B needs no shares and a G no values, only sigma(K) is formed twice, and 32 x 64
// accumulators are 64 registers of a thread, which leaves room for two blocks of 256 threads on a multiprocessor: one
// converts while the other multiplies. A warp that takes 32 x 64 loads one fragment for each four multiplications. 64
// dimensions are bound by memory, and 16 x 64 makes more warps of them. 256 rows leave room for 64 columns.
constexpr SumsTile sums_tile(int dim) {
  if (dim <= 64) return {32, 64, 16, 4};
  if (dim <= 128) return {32, 128, 32, 2};
  return {32, 64, 32, 1};
}

struct ChainTile {
  int columns;  // of M, kept in registers by a block that has all rows: 16 for each warp
  int stages;   // 32 bytes for each thread in flight
  constexpr int threads(int head_dim) const { return padded(head_dim) / 16 * 32; }
  constexpr int stride(int head_dim) const { return (head_dim + 31) / 32 * 32; }  // of a column of M / z
  constexpr int shared_bytes(int head_dim) const {
    return stages * threads(head_dim) * 32 + columns * stride(head_dim) * int(sizeof(float));
  }
};

// The chain has only as many blocks as there are streams, heads and slabs, and each waits for itself: narrow slabs. Each
// reads all of G from the L2 cache, so not narrower than 32. Three stages of loads hide what the fourth multiplies.
constexpr ChainTile chain_tile() { return {32, 4}; }

struct DenseTile {
  static constexpr int kChunk = 32;  // inputs of one chain of multiply-adds: the order of additions, the same everywhere
  static constexpr int kStride = kChunk / 4 + 1;  // of chunks in shared memory, in float4: eight meet eight banks' groups
  int rows, outputs;                // of a block
  int thread_rows, thread_outputs;  // of a thread
  int chunks;                       // of a step, each multiplied by threads of its own
  int blocks;                       // that share a multiprocessor, as far as registers decide
  __host__ __device__ constexpr int threads() const {
    return rows / thread_rows * (outputs / thread_outputs) * chunks;
  }
};

// Many rows are bound by multiply-adds: with 4 x 4 outputs a thread makes 64 of them of 8 loads from shared memory, and
// those keep up. Tiles of 128 would load less, but a small model has too few of them for a GPU: 512 rows of 2048 outputs
// are 256 tiles of 64. Few rows are bound by the bytes of W: blocks of 8 outputs are many (256 of 2048 outputs), and 16
// chunks at once are 8 KB of 16-bit W under way in each. Every four rows read W again, from the L2 cache, so that beyond
// some 32 rows the large tiles, though half empty, are better. Nothing of this has been measured yet.
constexpr int kFewRows = 32;
__host__ __device__ constexpr DenseTile dense_tile(bool few_rows) {
  if (few_rows) return {4, 8, 4, 1, 16, 4};
  return {64, 64, 4, 4, 1, 2};
}

}  // namespace infini::cuda

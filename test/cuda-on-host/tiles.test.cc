// Every tile shape that tiles.h chooses fits the smallest GPU: whatever the configuration, no block needs more shared
// memory than compute capability 8.6, 8.9 and 12.0 have, and none has more threads than a block may. What decoding
// splits, its splits cover.
#include "tiles.h"

#include <algorithm>

#include "check.h"

using namespace infini::cuda;

namespace {

constexpr Element kElements[] = {Element::Float32, Element::BFloat16, Element::Float16};

// What the kernels' variables take of shared memory beside what they ask for, as ptxas counts it.
constexpr int kRowsStatic = 1024;  // forward, retrieve, decode
constexpr int sums_static(int dim) { return dim <= 64 ? 1024 : dim <= 128 ? 2048 : 3072; }

void check_block(int threads, int64_t dynamic_bytes, int static_bytes) {
  CHECK(threads >= 32 && threads <= 1024 && threads % 32 == 0);
  CHECK(dynamic_bytes >= 0 && dynamic_bytes + static_bytes <= kSharedLimit);
}

void check_decode(const Shape& shape, int tokens) {
  const DecodeTile tile = decode_tile(shape, tokens);
  check_block(DecodeTile::kThreads, tile.shared_bytes(), kRowsStatic);
  CHECK(tile.rows * tile.row_blocks >= tokens * (shape.heads / shape.kv_heads));
  CHECK(int64_t(tile.keys) * tile.steps * tile.key_splits >= shape.segment_length);
  CHECK(tile.memory_rows * tile.memory_splits >= shape.head_dim);
  CHECK(tile.splits == tile.memory_splits + tile.key_splits);
  CHECK(tile.record_floats >= int64_t(tile.rows) * (2 * tile.key_splits + tile.splits * shape.value_dim));
}

const float2 kTurn{};
const float2* const kRotations[] = {nullptr, &kTurn};

Shape decoded(Element element, int group, int kv_heads, int head_dim, int value_dim, int segment,
              const float2* rotary) {
  return {element, true, false, group * kv_heads, kv_heads, head_dim, value_dim, segment, 1.0f, nullptr, rotary};
}

}  // namespace

// retrieve has forward's tiles; key_sums has no dynamic shared memory.
TEST(tiles_of_forward_sums_and_chain_fit_small) {
  for (Element element : kElements) {
    const int bytes = element == Element::Float32 ? 4 : 2;
    for (int dim : {64, 128, 256}) {
      const ForwardTile forward = forward_tile(dim, bytes);
      CHECK(forward.rows % (16 * forward.strips) == 0 && forward.keys % 16 == 0);
      check_block(forward.threads(), forward.shared_bytes(dim, bytes), kRowsStatic);
      const SumsTile sums = sums_tile(dim);
      CHECK(kChunkTokens % sums.tokens == 0);
      check_block(sums.threads(dim), sums.shared_bytes(dim, element), sums_static(dim));
    }
  }
  for (int dim = 1; dim <= 256; ++dim) check_block(chain_tile().threads(dim), chain_tile().shared_bytes(dim), 0);
}

TEST(tiles_of_decode_fit_small) {
  for (Element element : kElements) {
    for (const float2* rotary : kRotations) {
      for (int kv_heads : {1, 64}) {
        for (int head_dim = 1; head_dim <= 256; ++head_dim) {
          for (int value_dim = 1; value_dim <= 256; ++value_dim) {
            check_decode(decoded(element, 64 / kv_heads, kv_heads, head_dim, value_dim, 65536, rotary), kDecodeTokens);
          }
        }
      }
    }
  }
}

TEST(tiles_of_decode_calls_fit_small) {
  for (Element element : kElements) {
    for (const float2* rotary : kRotations) {
      for (int head_dim : {1, 16, 17, 64, 100, 128, 129, 256}) {
        for (int value_dim : {1, 16, 17, 64, 65, 128, 129, 256}) {
          for (int group : {1, 2, 3, 8, 17, 128}) {
            for (int kv_heads : {1, 2, 7, 8, 32}) {
              for (int segment : {1, 16, 63, 512, 2048, 65536}) {
                for (int tokens = 1; tokens <= kDecodeTokens; ++tokens) {
                  check_decode(decoded(element, group, kv_heads, head_dim, value_dim, segment, rotary), tokens);
                }
              }
            }
          }
        }
      }
    }
  }
}

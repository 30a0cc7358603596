// Every tile shape that tiles.h chooses fits the smallest GPU: whatever the configuration, no block needs more shared
// memory than compute capability 8.6, 8.9 and 12.0 have, and none has more threads than a block may.
#include "tiles.h"

#include <algorithm>

#include "check.h"

using namespace infini::cuda;

namespace {

constexpr Element kElements[] = {Element::Float32, Element::BFloat16, Element::Float16};

// own_bytes: at least what the kernel declares beside its dynamic shared memory.
void check_block(int threads, int64_t shared_bytes, int own_bytes) {
  CHECK(threads >= 32 && threads <= 1024 && threads % 32 == 0);
  CHECK(shared_bytes >= 0 && shared_bytes + own_bytes <= kSharedLimit);
}

}  // namespace

TEST(tiles_of_forward_sums_and_chain_fit_small) {
  for (Element element : kElements) {
    const int bytes = element == Element::Float32 ? 4 : 2;
    for (int dim : {64, 128, 256}) {
      const ForwardTile forward = forward_tile(dim, bytes);
      CHECK(forward.rows % (16 * forward.strips) == 0 && forward.keys % 16 == 0);
      check_block(forward.threads(), forward.shared_bytes(dim, bytes), 512);
      const SumsTile sums = sums_tile(dim);
      CHECK(kChunkTokens % sums.tokens == 0);
      check_block(sums.threads(dim), sums.shared_bytes(dim, element), 4096);
    }
  }
  for (int dim = 1; dim <= 256; ++dim) check_block(chain_tile().threads(dim), chain_tile().shared_bytes(dim), 0);
}

TEST(tiles_of_decode_fit_small) {
  const float2 turn{};
  for (Element element : kElements) {
    for (int head_dim : {1, 2, 15, 16, 17, 63, 64, 65, 100, 127, 128, 129, 192, 255, 256}) {
      for (int value_dim : {1, 15, 16, 17, 64, 65, 128, 129, 192, 255, 256}) {
        for (int group : {1, 2, 3, 8, 17, 128}) {
          for (int kv_heads : {1, 2, 7, 8, 32}) {
            for (int segment : {1, 16, 63, 512, 2048, 65536}) {
              for (int tokens = 1; tokens <= kDecodeTokens; ++tokens) {
                for (const float2* rotary : {static_cast<const float2*>(nullptr), &turn}) {
                  const Shape shape = {element,   true,      false,   group * kv_heads, kv_heads, head_dim,
                                       value_dim, segment, 1.0f, nullptr,          rotary};
                  const DecodeTile tile = decode_tile(shape, tokens);
                  check_block(DecodeTile::kThreads, tile.shared_bytes(), 1024);
                  CHECK(tile.rows * tile.row_blocks >= tokens * group);
                  CHECK(int64_t(tile.keys) * tile.steps * tile.key_splits >= segment);
                  CHECK(tile.memory_rows * tile.memory_splits >= head_dim);
                }
              }
            }
          }
        }
      }
    }
  }
}

// The open segment's keys and values, in the stream's dtype, as the kernels want to read them.
#pragma once

#include "core/backend.h"
#include "core/buffer.h"
#include "cpu/kernels.h"

namespace infini::cpu {

class SegmentCache {
 public:
  SegmentCache() = default;
  SegmentCache(const StreamConfig& config, Ledger& ledger, std::atomic<int64_t> Ledger::* account);

  Segment head(const StreamConfig& config, int kv_head) const;
  // Writes a piece's keys (unrotated, transposed into panels) and values at their positions. What is already
  // there stays as it is: a call that fails later leaves nothing that counts.
  void append(const StreamConfig& config, int kv_head, const Tensors& tensors, const Piece& piece);
  // Some tokens, as append took them.
  void read(const StreamConfig& config, int kv_head, int64_t begin, int64_t tokens, void* keys, void* values) const;

  Buffer buffer;
};

}  // namespace infini::cpu

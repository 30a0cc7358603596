// Segment-local rotary positions, as in Llama: pair (i, i + headDim/2) turns by position * theta^(-2i/headDim).
#pragma once

#include <memory>

#include "core/buffer.h"
#include "cpu/kernels.h"

namespace infini::cpu {

class RotaryTable {
 public:
  RotaryTable(double theta, int head_dim, int64_t positions, Ledger& ledger);
  Rotary view() const { return {table_.as<double>(), table_.as<double>() + entries_}; }

 private:
  int64_t entries_;
  Buffer table_;  // cosines, then sines; each in panels of [headDim / 2][kPanel]
};

// One table per (theta, headDim, N), shared by every stream that uses it and gone with the last.
std::shared_ptr<const RotaryTable> shared_rotary_table(double theta, int head_dim, int64_t positions, Ledger& ledger);

}  // namespace infini::cpu

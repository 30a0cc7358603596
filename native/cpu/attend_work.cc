// stream.attend on the CPU: how one call is cut into stages and units. The results do not depend on the cut.
//
// Every piece of a segment goes append -> attend (+ residual, when the segment is full) -> absorb. Key-value heads
// never meet, so where a head's share is small, one unit takes a head through as many pieces as fit ("span");
// where it is large, each of the three steps is a stage whose units are tiles of a head.
#include <algorithm>

#include "core/memory_budget.h"
#include "cpu/call_work.h"

namespace infini::cpu {
namespace {

// Costs are in flops of the matrix products, about 1/30 ns. What is not a product dominates small shapes.
constexpr double kUnitFlops = 64e6;   // about 2 ms of AVX2; far below 50 ms on any processor
constexpr double kScoreCost = 100;    // a score's share of the softmax
constexpr double kFeatureCost = 100;  // sigma of one element
constexpr double kRowCost = 5000, kPieceCost = 20000;
constexpr double kSmallFlops = 0.25e6;  // not worth a unit of its own
constexpr int64_t kAppendElements = 2 << 20;  // keys and values one unit writes to the cache: a few milliseconds

class AttendWork final : public CallWork {
 public:
  AttendWork(CpuStreamState& state, const Tensors& tensors, const Pieces& pieces, bool absorbed, bool checked)
      : CallWork(state, tensors), pieces_(pieces), absorbed_(absorbed), stage_(checked ? Stage::Check : Stage::Start) {
    const int64_t absorb_bytes = config_.kv_heads * absorb_elements(config_) * int64_t(sizeof(float));
    if (pieces.size() > 1) scratch_bytes_ += config_.segment_length * config_.token_bytes();
    if (pieces.completed() > 0) scratch_bytes_ += config_.memory_bytes() + absorb_bytes;
    if (scratch_bytes_ > 0) require_memory(uint64_t(scratch_bytes_), "the scratch of one call", state.ledger);

    if (pieces.size() > 1) later_segments_ = SegmentCache(config_, state.ledger, &Ledger::scratch_bytes);
    if (pieces.completed() > 0) {
      next_memory_ = MemoryBuffer(config_, state.ledger, &Ledger::scratch_bytes);
      absorbed_rows_ = Buffer(size_t(absorb_bytes), state.ledger, &Ledger::scratch_bytes);
      exact_rows_.resize(size_t(config_.kv_heads));
      exact_ = std::vector<std::atomic<bool>>(size_t(config_.kv_heads));
    }
    state.ledger.untouched_bytes += scratch_bytes_;  // spoken for: another call must not count on it
  }
  ~AttendWork() override { state_.ledger.untouched_bytes -= scratch_bytes_; }

  int next_stage() override {
    failure_.raise();
    switch (stage_) {
      case Stage::Start:
        stage_ = Stage::Check;
        return check_units();
      case Stage::Append:
        return plan_attend();
      case Stage::Attend:
        if (pieces_[piece_].completes) return plan_residual();
        [[fallthrough]];
      case Stage::Residual:
        if (pieces_[piece_].completes) return plan_absorb();
        [[fallthrough]];
      case Stage::Absorb:
      case Stage::Span:
        piece_ += span_;
        [[fallthrough]];
      default:
        if (piece_ < pieces_.size()) return plan_pieces();
        release_rows();  // in a batch this work waits for the others
        return 0;
    }
  }

  void run(int unit) override {
    switch (stage_) {
      case Stage::Check: return check(unit);
      case Stage::Append: return run_append(unit);
      case Stage::Attend: return run_attend(unit);
      case Stage::Residual: return run_residual(unit);
      case Stage::Absorb: return run_absorb(unit);
      default: return run_span(unit);
    }
  }

  void commit() noexcept override {
    publish();
    const Piece first = pieces_[0], last = pieces_[pieces_.size() - 1];
    if (pieces_.completed() > 0) state_.memory.buffer.exchange(next_memory_.buffer);
    if (pieces_.size() > 1 && !last.completes) {
      state_.cache.buffer.exchange(later_segments_.buffer);
      state_.set_touched(pieces_.size() > 2 ? config_.segment_length : last.count);
    } else {
      state_.set_touched(std::max(state_.touched(), first.start + first.count));
    }
  }

 private:
  enum class Stage { Start, Check, Span, Append, Attend, Residual, Absorb };

  double memory_product() const { return 2.0 * config_.head_dim * padded(config_.value_dim); }

  // Cost of one query row against so many keys.
  double row_cost(double keys) const {
    return keys * (2.0 * (config_.head_dim + padded(config_.value_dim)) + kScoreCost) + memory_product() +
           config_.head_dim * kFeatureCost + kRowCost;
  }

  // Cost of one key-value head for one piece.
  double head_cost(const Piece& piece) const {
    const double rows = double(config_.group()) * double(piece.count);
    const double absorb = config_.segment_length * (2.0 * memory_product() + 2.0 * config_.head_dim * kFeatureCost);
    return rows * row_cost(double(piece.start) + double(piece.count) / 2) + (piece.completes ? absorb : 0.0) + kPieceCost;
  }

  int plan_pieces() {
    const double cost = head_cost(pieces_[piece_]);
    const double most = config_.kv_heads >= state_.threads ? kUnitFlops : 4 * kSmallFlops;
    if (cost > most) {
      stage_ = Stage::Append;
      span_ = 1;
      append_tokens_ = std::max<int64_t>(1, kAppendElements / (config_.head_dim + config_.value_dim));
      return int((pieces_[piece_].count + append_tokens_ - 1) / append_tokens_) * config_.kv_heads;
    }
    // All pieces but the first and the last are whole segments and cost the same.
    const double whole = head_cost({0, 0, config_.segment_length, true});
    stage_ = Stage::Span;
    span_ = std::min<int64_t>(pieces_.size() - piece_, 1 + int64_t(std::max(0.0, most - cost) / whole));
    const double all = (cost + double(span_ - 1) * whole) * config_.kv_heads;
    units_ = std::clamp<int>(int(all / kSmallFlops), 1, config_.kv_heads);
    return units_;
  }

  int plan_attend() {
    stage_ = Stage::Attend;
    const Piece piece = pieces_[piece_];
    tile_rows_ = std::clamp<int64_t>(int64_t(kUnitFlops / row_cost(double(piece.start + piece.count))), 1, kTileRows);
    tiles_ = (piece.count * config_.group() + tile_rows_ - 1) / tile_rows_;
    const int64_t blocks = piece.completes ? residual_blocks() : 0;
    for (auto& exact : exact_) exact = false;
    return int((tiles_ + blocks) * config_.kv_heads);
  }

  // Again and exactly, for the heads where float32 did not do. Mostly there are none.
  int plan_residual() {
    exact_heads_.clear();
    for (int head = 0; head < config_.kv_heads; ++head) {
      if (!exact_[size_t(head)]) continue;
      make_exact(head);
      exact_heads_.push_back(head);
    }
    if (exact_heads_.empty()) return plan_absorb();
    stage_ = Stage::Residual;
    return int(residual_blocks() * int64_t(exact_heads_.size()));
  }

  int plan_absorb() {
    stage_ = Stage::Absorb;
    // N * valueDim beyond 4M would make a unit of 32 rows take more than 10 ms.
    state_rows_ = int64_t(config_.segment_length) * config_.value_dim > 4'000'000 ? kStateRows / 4 : kStateRows;
    return (config_.head_dim + state_rows_ - 1) / state_rows_ * config_.kv_heads;
  }

  // The first piece continues the stream's open segment; the others never touch it, so that a failing call
  // leaves it whole.
  SegmentCache& cache(int64_t piece) { return piece == 0 ? state_.cache : later_segments_; }

  // What piece sees of the memory: the stream's before the first border, this call's own after it.
  bool memory_before(int64_t piece, int head, Memory* memory) const {
    *memory = (piece == 0 ? state_.memory : next_memory_).head(config_, head);
    return piece > 0 || absorbed_;
  }

  void release_rows() {
    const int64_t bytes = int64_t(absorbed_rows_.bytes());
    absorbed_rows_ = Buffer();
    exact_rows_.clear();
    scratch_bytes_ -= bytes;
    state_.ledger.untouched_bytes -= bytes;
  }

  int64_t residual_blocks() const { return (config_.segment_length + kTokens - 1) / kTokens; }

  struct HeadRows {
    void *features, *residual;
  };
  HeadRows rows(int head, bool exact) const {
    if (exact) {
      double* own = exact_rows_[size_t(head)].as<double>();
      return {own, own + feature_elements(config_)};
    }
    float* own = absorbed_rows_.as<float>() + head * absorb_elements(config_);
    return {own, own + feature_elements(config_)};
  }

  // From here on this head's rows are float64.
  void make_exact(int head) {
    Buffer& rows = exact_rows_[size_t(head)];
    if (rows.bytes() > 0) return;
    const size_t bytes = size_t(absorb_elements(config_)) * sizeof(double);
    require_memory(bytes, "the scratch of one call", state_.ledger);
    rows = Buffer(bytes, state_.ledger, &Ledger::scratch_bytes);
  }

  void attend_tile(int64_t index, int head, int64_t begin, int64_t end) {
    const Piece piece = pieces_[index];
    Memory memory;
    const bool read = memory_before(index, head, &memory);
    const bool local_only = !read && config_.empty_read == EmptyRead::Local;
    const int first = head * config_.group();
    Rotary rotary;
    if (state_.rotary) rotary = state_.rotary->view();
    const int64_t overflow = kernels_.forward(
        {state_.dims(), query_rows(head, piece.token, begin, end), output_rows(head, piece.token),
         config_.output_width(), cache(index).head(config_, head), piece.start, config_.scale,
         state_.rotary ? &rotary : nullptr, read ? &memory : nullptr, state_.gate.data() + first,
         (local_only ? state_.whole : state_.gate_rest).data() + first},
        workspace());
    if (overflow >= 0) failure_.note(piece.token + overflow, Site::Output);
  }

  // False when this head must be done exactly.
  bool residual_block(int64_t index, int head, int64_t begin, bool exact) {
    Memory memory;
    const bool read = memory_before(index, head, &memory);
    const int64_t end = std::min<int64_t>(config_.segment_length, begin + kTokens);
    const HeadRows to = rows(head, exact);
    return kernels_.residual({state_.dims(), cache(index).head(config_, head), begin, end,
                              read && config_.rule == Rule::Delta ? &memory : nullptr, exact, to.features, to.residual},
                             workspace());
  }

  bool absorb_rows(int64_t index, int head, int begin, int end) {
    Memory memory;
    const bool read = memory_before(index, head, &memory);
    const bool exact = exact_[size_t(head)];
    const HeadRows from = rows(head, exact);
    const bool finite = kernels_.absorb({state_.dims(), cache(index).head(config_, head), exact, from.features,
                                         from.residual, begin, end, read ? &memory : nullptr,
                                         next_memory_.matrix(config_, head), next_memory_.normalizer(config_, head)},
                                        workspace());
    const Piece piece = pieces_[index];
    if (!finite) failure_.note(piece.token + piece.count - 1, Site::Memory);
    return finite;
  }

  void run_append(int unit) {
    Piece part = pieces_[piece_];
    const int64_t skip = unit / config_.kv_heads * append_tokens_;
    part.token += skip;
    part.start += skip;
    part.count = std::min(part.count - skip, append_tokens_);
    cache(piece_).append(config_, unit % config_.kv_heads, tensors_, part);
  }

  void run_attend(int unit) {
    const int head = unit % config_.kv_heads;
    const int64_t tile = tiles_ - 1 - unit / config_.kv_heads;  // the last tile sees most keys: longest first
    if (tile < 0) {
      if (!exact_[size_t(head)] && !residual_block(piece_, head, (-1 - tile) * kTokens, false)) exact_[size_t(head)] = true;
      return;
    }
    const int64_t rows = pieces_[piece_].count * config_.group();
    attend_tile(piece_, head, tile * tile_rows_, std::min(rows, (tile + 1) * tile_rows_));
  }

  void run_residual(int unit) {
    const int head = exact_heads_[size_t(unit) % exact_heads_.size()];
    residual_block(piece_, head, unit / int64_t(exact_heads_.size()) * kTokens, true);
  }

  void run_absorb(int unit) {
    const int begin = unit / config_.kv_heads * state_rows_;
    absorb_rows(piece_, unit % config_.kv_heads, begin, std::min(config_.head_dim, begin + state_rows_));
  }

  void run_span(int unit) {
    const int first = int(int64_t(unit) * config_.kv_heads / units_);
    const int last = int(int64_t(unit + 1) * config_.kv_heads / units_);
    for (int head = first; head < last; ++head) {
      for (int64_t index = piece_; index < piece_ + span_; ++index) {
        if (cancelled || !whole_piece(index, head)) break;
      }
    }
  }

  bool whole_residual(int64_t index, int head, bool exact) {
    for (int64_t token = 0; token < config_.segment_length; token += kTokens) {
      if (!residual_block(index, head, token, exact) && !exact) return false;
    }
    return true;
  }

  // False when this head's memory overflowed: nothing after it means anything.
  bool whole_piece(int64_t index, int head) {
    const Piece piece = pieces_[index];
    const int64_t rows = piece.count * config_.group();
    cache(index).append(config_, head, tensors_, piece);
    for (int64_t row = 0; row < rows; row += kTileRows) {
      attend_tile(index, head, row, std::min(rows, row + kTileRows));
    }
    if (!piece.completes) return true;
    exact_[size_t(head)] = !whole_residual(index, head, false);
    if (exact_[size_t(head)]) {
      make_exact(head);
      whole_residual(index, head, true);
    }
    bool finite = true;
    for (int row = 0; row < config_.head_dim; row += kStateRows) {
      finite &= absorb_rows(index, head, row, std::min(config_.head_dim, row + kStateRows));
    }
    return finite;
  }

  const Pieces pieces_;
  const bool absorbed_;
  SegmentCache later_segments_;  // open segment of the pieces after the first
  MemoryBuffer next_memory_;     // M and z after the last segment absorbed in this call
  Buffer absorbed_rows_;                  // of all heads, float32
  std::vector<Buffer> exact_rows_;        // of each head that needed float64 once
  std::vector<std::atomic<bool>> exact_;  // whether this piece's rows are float64
  std::vector<int> exact_heads_;

  Stage stage_;
  int64_t piece_ = 0, span_ = 0;
  int64_t scratch_bytes_ = 0;
  int units_ = 0, state_rows_ = kStateRows;
  int64_t append_tokens_ = 0, tile_rows_ = kTileRows, tiles_ = 0;
};

}  // namespace

std::unique_ptr<Work> make_attend(CpuStreamState& state, const Tensors& tensors, const Pieces& pieces, bool absorbed,
                                  bool checked) {
  return std::make_unique<AttendWork>(state, tensors, pieces, absorbed, checked);
}

std::unique_ptr<Work> CpuStreamState::attend(const Tensors& tensors, const Pieces& pieces, bool absorbed) {
  return make_attend(*this, tensors, pieces, absorbed, false);
}

}  // namespace infini::cpu

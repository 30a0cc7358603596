// stream.attend on the GPU: how one call is cut into spans.
//
// A few tokens that lie in one segment are decoded: one span. Otherwise a span is as many whole pieces of
// core/segments.h as its bounds allow, or a part of one piece that alone exceeds them. What a span computes for a token
// does not depend on where the cuts are; which of the two ways a call goes depends on its tokens and its stream's place
// alone.
#include <algorithm>

#include "backend/call_work.h"
#include "backend/stream_state.h"

namespace infini::cuda {
namespace {

constexpr int64_t kLightTokens = 1024;        // of a call that need not be cut for the time it takes
constexpr size_t kLightWorkspace = 16 << 20;  // nor for its scratch

// Decoding reads the open segment once for all query rows of a key-value head; it is made for few of them.
constexpr int kDecodeRows = 64;

class AttendWork final : public CallWork {
 public:
  AttendWork(CudaStreamState& state, const Tensors& tensors, const Pieces& pieces, bool absorbed)
      : CallWork(*state.configuration, tensors, is_light(*state.configuration, tensors, pieces)),
        state_(state),
        pieces_(pieces),
        absorbed_(absorbed),
        decodes_(pieces.size() == 1 && tensors.tokens <= kDecodeTokens &&
                 tensors.tokens * config_.group() <= kDecodeRows) {
    if (pieces.completed() > 0) next_memory_ = state.new_memory(&Ledger::scratch_bytes);
    if (pieces.size() > 1 && !last_piece().completes) next_cache_ = state.new_cache(&Ledger::scratch_bytes);
  }
  ~AttendWork() override { land(); }

  void commit() override {
    publish();
    if (next_memory_) state_.memory.exchange(next_memory_);
    if (next_cache_) state_.cache.exchange(next_cache_);
  }

 private:
  static bool is_light(const Configuration& configuration, const Tensors& tensors, const Pieces& pieces) {
    return tensors.tokens <= kLightTokens &&
           configuration.workspace_bytes(pieces.size(), pieces.completed()) <= kLightWorkspace;
  }

  Piece last_piece() const { return pieces_[pieces_.size() - 1]; }

  // Multiplications, about; of one part of a piece, from position `start` of its segment on.
  double attend_cost(int64_t start, int64_t count) const {
    const double keys = double(start) + double(count) / 2, dims = config_.head_dim + config_.value_dim;
    return double(count) * config_.heads * ((keys + 64) * dims + double(config_.head_dim) * config_.value_dim);
  }
  double absorb_cost() const {
    const double rows = config_.head_dim, columns = config_.head_dim + config_.value_dim;
    return double(config_.kv_heads) * rows * (config_.segment_length * columns + rows * config_.value_dim);
  }
  double cost(const Piece& piece) const {
    return attend_cost(piece.start, piece.count) + (piece.completes ? absorb_cost() : 0.0);
  }

  void plan(Request& request) override {
    const int64_t index = (pieces_[0].start + begin_) / config_.segment_length;
    const Piece first = pieces_[index];
    const int64_t count = decodes_ ? 1 : whole_pieces(index);
    const Piece last = pieces_[index + std::max<int64_t>(count, 1) - 1];
    end_ = last.token + last.count;
    if (count == 0) end_ = std::min(end_, begin_ + part_of(first));

    const Pieces span(first.start, end_ - first.token, config_.segment_length);
    request.kind = decodes_ ? Request::Kind::Decode : Request::Kind::Attend;
    Job& job = request.job;
    job.first_token = first.token;
    job.tokens = int(end_ - first.token);
    job.open = int(first.start);
    job.borders = int(span.completed());
    job.pieces = int(span.size());
    // Before the first border the memory is the stream's, behind it the call's own.
    const Block& memory = index == 0 ? state_.memory : next_memory_;
    job.absorbed = index > 0 || absorbed_;
    job.matrix = configuration_.matrix(memory);
    job.normalizer = configuration_.normalizer(memory);
    if (job.borders > 0) {
      job.next_matrix = configuration_.matrix(next_memory_);
      job.next_normalizer = configuration_.normalizer(next_memory_);
    }
    job.cached_keys = configuration_.keys(state_.cache);
    job.cached_values = configuration_.values(state_.cache);
    if (!decodes_) {
      request.first_tile = int((begin_ - first.token) / forward_tile_rows(configuration_.shape));
      request.cost = attend_cost(first.start + begin_ - first.token, end_ - begin_) + job.borders * absorb_cost();
      if (end_ == tensors_.tokens && !last.completes) {
        const Block& cache = next_cache_ ? next_cache_ : state_.cache;
        request.tail_keys = configuration_.keys(cache);
        request.tail_values = configuration_.values(cache);
      }
    }
    place(request, first.token, last.token + last.count);
    if (job.borders > 0 || (job.absorbed && !decodes_)) reserve_workspace(job.pieces, job.borders);
  }

  // How many pieces, from one on, fit into a span. None: not even this one, or it has been begun.
  int64_t whole_pieces(int64_t index) const {
    if (begin_ > pieces_[index].token) return 0;
    double cost_left = most_cost();
    int64_t tokens_left = most_tokens(), count = 0, borders = 0;
    for (; index + count < pieces_.size(); ++count) {
      const Piece piece = pieces_[index + count];
      cost_left -= cost(piece);
      tokens_left -= piece.count;
      borders += piece.completes;
      const bool fits = cost_left >= 0 && tokens_left >= 0 &&
                        (count == 0 || configuration_.workspace_bytes(count + 1, borders) <= device_.most_workspace());
      if (!fits) break;
    }
    return count;
  }

  // How many tokens of a piece, from begin_ on, make a span: whole tiles.
  int64_t part_of(const Piece& piece) const {
    const int64_t rows = forward_tile_rows(configuration_.shape);
    const int64_t start = piece.start + begin_ - piece.token;
    int64_t tokens = rows;
    while (tokens + rows <= most_tokens() && tokens < piece.count && attend_cost(start, tokens + rows) <= most_cost()) {
      tokens += rows;
    }
    return tokens;
  }

  CudaStreamState& state_;
  const Pieces pieces_;
  const bool absorbed_, decodes_;
  Block next_memory_;  // after the last border of the call
  Block next_cache_;   // the open segment after it
};

}  // namespace

std::unique_ptr<Work> CudaStreamState::attend(const Tensors& tensors, const Pieces& pieces, bool absorbed) {
  return std::make_unique<AttendWork>(*this, tensors, pieces, absorbed);
}

}  // namespace infini::cuda

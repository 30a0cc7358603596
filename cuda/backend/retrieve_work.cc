// stream.retrieve on the GPU: A_mem alone, for any number of queries, from what is absorbed. Changes nothing.
#include <algorithm>

#include "backend/call_work.h"
#include "backend/stream_state.h"

namespace infini::cuda {
namespace {

constexpr int64_t kLightTokens = 4096;

class RetrieveWork final : public CallWork {
 public:
  RetrieveWork(CudaStreamState& state, const Tensors& tensors, bool absorbed)
      : CallWork(*state.configuration, tensors, tensors.tokens <= kLightTokens), state_(state), absorbed_(absorbed) {}
  ~RetrieveWork() override { land(); }

  void commit() override { publish(); }

 private:
  void plan(Request& request) override {
    const double token_cost = double(config_.heads) * config_.head_dim * config_.value_dim;
    const int64_t affordable = int64_t(std::min(most_cost() / token_cost, double(most_tokens())));
    const int64_t rows = retrieve_tile_rows(configuration_.shape);
    const int64_t whole_tiles = std::max(rows, affordable / rows * rows);
    end_ = affordable >= tensors_.tokens - begin_ ? tensors_.tokens : std::min(tensors_.tokens, begin_ + whole_tiles);

    request.kind = Request::Kind::Retrieve;
    request.cost = token_cost * double(end_ - begin_);
    Job& job = request.job;
    job.first_token = begin_;
    job.tokens = int(end_ - begin_);
    job.absorbed = absorbed_;
    job.pieces = 1;
    job.matrix = configuration_.matrix(state_.memory);
    job.normalizer = configuration_.normalizer(state_.memory);
    place(request, begin_, end_);
    if (absorbed_) reserve_workspace(1, 0);
  }

  CudaStreamState& state_;
  const bool absorbed_;
};

}  // namespace

std::unique_ptr<Work> CudaStreamState::retrieve(const Tensors& tensors, bool absorbed) {
  return std::make_unique<RetrieveWork>(*this, tensors, absorbed);
}

}  // namespace infini::cuda

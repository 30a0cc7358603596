#include "backend/backend.h"

#include <algorithm>

#include "backend/batch_state.h"
#include "backend/call_work.h"
#include "backend/dense.h"
#include "backend/probe.h"
#include "backend/stream_state.h"

namespace infini::cuda {
namespace {

class CudaMemory final : public TensorMemory {
 public:
  CudaMemory(Block block, infini::Place place)
      : TensorMemory(block.data(), block.bytes(), place), block_(std::move(block)) {}

 private:
  Block block_;
};

}  // namespace

CudaBackend::CudaBackend(Ledger& ledger, int gpu)
    : Backend(ledger), device_(gpu, ledger), configurations_(device_), launcher_(device_) {}

DeviceInfo CudaBackend::info() const { return describe(device_.index); }

uint64_t CudaBackend::free_bytes() {
  const Device::Scope scope(device_);
  size_t available = 0, total = 0;
  device_.check(cudaMemGetInfo(&available, &total));
  return available;
}

std::unique_ptr<StreamState> CudaBackend::create(const StreamConfig& config) {
  const Device::Scope scope(device_);
  device_.require_working();
  return std::make_unique<CudaStreamState>(configurations_.find(config));
}

std::unique_ptr<BatchState> CudaBackend::create_batch(const StreamConfig&, std::vector<StreamState*> streams) {
  const auto& first = static_cast<const CudaStreamState&>(*streams.front());
  return std::make_unique<CudaBatchState>(first.configuration, streams);
}

std::unique_ptr<DenseLayers> CudaBackend::create_dense(const ModelConfig& config, WeightSource& weights) {
  return std::make_unique<CudaDenseLayers>(device_, config, weights);
}

std::shared_ptr<TensorMemory> CudaBackend::allocate_device(size_t bytes) {
  const Device::Scope scope(device_);
  Block block = device_.memory.take(bytes, &Ledger::tensor_bytes, "a tensor");
  device_.clear(block.data(), bytes);
  return std::make_shared<CudaMemory>(std::move(block), infini::Place::Device);
}

std::shared_ptr<TensorMemory> CudaBackend::allocate_host(size_t bytes, Account account) {
  Block block = device_.pinned.take(bytes, account, "the tensors of one call");
  return std::make_shared<CudaMemory>(std::move(block), infini::Place::Host);
}

void CudaBackend::write(TensorMemory& to, const void* from, size_t bytes) {
  const Device::Scope scope(device_);
  device_.upload(to.data(), from, bytes);
}

void CudaBackend::read(const TensorMemory& from, void* to, size_t bytes) {
  const Device::Scope scope(device_);
  device_.download(to, from.data(), bytes);
}

void CudaBackend::launch(Work* const* works, int count) {
  const Device::Scope scope(device_);
  device_.require_working();
  std::lock_guard lock(device_.queue);
  try {
    std::vector<Request*> requests;
    for (int i = 0; i < count; ++i) static_cast<CudaWork*>(works[i])->launch(requests);
    launcher_.launch(requests);
    const auto takes_long = [](const Request* request) { return request->cost > 0; };
    device_.sharing = std::max(1, int(std::count_if(requests.begin(), requests.end(), takes_long)));
  } catch (...) {
    device_.drain();  // what was enqueued uses memory that these works now let go of
    throw;
  }
}

}  // namespace infini::cuda

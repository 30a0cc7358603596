// What a device whose memory is the processor's own needs no code for.
#include "core/backend.h"

#include <cstring>

#include "core/buffer.h"
#include "core/memory_budget.h"

namespace infini {
namespace {

class OrdinaryMemory final : public TensorMemory {
 public:
  OrdinaryMemory(Buffer buffer, size_t bytes, Place place)
      : TensorMemory(buffer.as<void>(), bytes, place), buffer_(std::move(buffer)) {}

 private:
  Buffer buffer_;
};

}  // namespace

uint64_t Backend::free_bytes() { return unspoken_memory(ledger); }

std::shared_ptr<TensorMemory> Backend::allocate_device(size_t bytes) {
  require_memory(bytes, "a tensor", ledger);
  Buffer buffer(bytes, ledger, &Ledger::tensor_bytes);
  std::memset(buffer.as<void>(), 0, bytes);
  return std::make_shared<OrdinaryMemory>(std::move(buffer), bytes, Place::Device);
}

std::shared_ptr<TensorMemory> Backend::allocate_host(size_t bytes, Account account) {
  return std::make_shared<OrdinaryMemory>(Buffer(bytes, ledger, account), bytes, Place::Host);
}

void Backend::write(TensorMemory& to, const void* from, size_t bytes) { std::memcpy(to.data(), from, bytes); }

void Backend::read(const TensorMemory& from, void* to, size_t bytes) { std::memcpy(to, from.data(), bytes); }

}  // namespace infini

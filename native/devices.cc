#include "devices.h"

#include "cpu/backend.h"
#include "core/error.h"

namespace infini {
namespace {

Engine& cpu_engine(int threads) {
  static Engine& engine = *[threads] {
    auto ledger = std::make_unique<Ledger>();
    auto backend = std::make_unique<cpu::CpuBackend>(*ledger, threads);
    return new Engine(std::move(ledger), std::move(backend));
  }();
  return engine;
}

bool names_cuda(const std::string& id) {
  if (id == "cuda") return true;
  if (id.rfind("cuda:", 0) != 0 || id.size() == 5) return false;
  return id.find_first_not_of("0123456789", 5) == std::string::npos;
}

}  // namespace

std::vector<DeviceInfo> list_devices(int threads) { return {cpu_engine(threads).info()}; }

Engine& engine_for(const std::string& id, int threads) {
  if (id == "auto" || id == "cpu") return cpu_engine(threads);
  if (names_cuda(id)) {
    throw Error(ErrorCode::NoDevice, "Expected a CUDA device for " + quoted(id) +
                                         " but this version of infini-stream has no CUDA backend; 'cpu' is available");
  }
  throw Error(ErrorCode::OutOfRange, "Expected 'auto', 'cpu', 'cuda' or 'cuda:<number>' for \"id\" but received " + quoted(id));
}

}  // namespace infini

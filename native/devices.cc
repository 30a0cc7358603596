#include "devices.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "core/error.h"
#include "cpu/backend.h"
#include "cpu/floors.h"
#ifdef INFINI_HAVE_CUDA
#include "backend/backend.h"
#include "backend/probe.h"
#endif

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

// The number N of 'cuda:N', 0 for 'cuda', -1 for any other name.
int cuda_number(const std::string& id) {
  if (id == "cuda") return 0;
  if (id.rfind("cuda:", 0) != 0 || id.size() == 5 || id.size() > 5 + 6) return -1;
  if (id.find_first_not_of("0123456789", 5) != std::string::npos) return -1;
  return std::stoi(id.substr(5));
}

#ifdef INFINI_HAVE_CUDA
using cuda::describe, cuda::probe, cuda::Probe;
std::unique_ptr<Backend> cuda_backend(Ledger& ledger, int gpu) {
  return std::make_unique<cuda::CudaBackend>(ledger, gpu);
}
#else
// A machine without GPUs, as far as this build can tell.
struct Probe {
  std::vector<std::string> refusals;
  std::string absence = "this build of infini-stream has no CUDA kernels";
};
Probe probe() { return {}; }
DeviceInfo describe(int) { return {}; }
std::unique_ptr<Backend> cuda_backend(Ledger&, int) { return nullptr; }
#endif

Engine& cuda_engine(int gpu) {
  static std::mutex& mutex = *new std::mutex;
  static auto& engines = *new std::map<int, Engine*>;
  std::lock_guard lock(mutex);
  Engine*& engine = engines[gpu];
  if (!engine) {
    auto ledger = std::make_unique<Ledger>();
    auto backend = cuda_backend(*ledger, gpu);
    engine = new Engine(std::move(ledger), std::move(backend));
  }
  return *engine;
}

}  // namespace

std::vector<DeviceInfo> list_devices(int threads) {
  std::vector<DeviceInfo> devices{cpu_engine(threads).info()};
  const Probe found = probe();
  for (size_t gpu = 0; gpu < found.refusals.size(); ++gpu) {
    if (found.refusals[gpu].empty()) devices.push_back(describe(int(gpu)));
  }
  return devices;
}

std::string cuda_absence() { return probe().absence; }

Engine& engine_for(const std::string& id, int threads) {
  if (id == "cpu") return cpu_engine(threads);
  const int gpu = cuda_number(id);
  if (gpu < 0 && id != "auto") {
    throw Error(ErrorCode::OutOfRange,
                "Expected 'auto', 'cpu', 'cuda' or 'cuda:<number>' for \"id\" but received " + quoted(id));
  }
  const auto [refusals, absence] = probe();
  if (id == "auto") {
    const auto usable = std::find(refusals.begin(), refusals.end(), "");
    if (usable == refusals.end()) return cpu_engine(threads);
    try {
      return cuda_engine(int(usable - refusals.begin()));
    } catch (const Error& error) {
      if (error.code != ErrorCode::NoDevice) throw;
      return cpu_engine(threads);
    }
  }
  std::string reason = absence;
  if (gpu < int(refusals.size())) {
    if (refusals[gpu].empty()) return cuda_engine(gpu);
    reason = refusals[gpu];
  } else if (!refusals.empty()) {
    reason = "there are no more than " + std::to_string(refusals.size()) + ", from 'cuda:0' on";
  }
  throw Error(ErrorCode::NoDevice,
              "Expected a CUDA device for " + quoted(id) + " but " + reason + "; 'cpu' is available");
}

double cpu_peak_flops(int threads) { return cpu::peak_flops(threads); }
double cpu_tile_flops(int threads) { return cpu::tile_flops(threads); }
double cpu_read_bandwidth(int threads, int64_t bytes) { return cpu::read_bandwidth(threads, bytes); }
double cpu_triad_bandwidth(int threads, int64_t bytes) { return cpu::triad_bandwidth(threads, bytes); }

}  // namespace infini

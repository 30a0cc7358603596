// The emulated runtime API: memory, errors, streams and graphs.
#include <cstdlib>
#include <cstring>
#include <thread>

#include "check.h"
#include "device_array.h"
#include "emulation/settings.h"
#include "ptx.cuh"

using namespace infini::cuda;
using namespace infini::emulation;

namespace {

__global__ void add(int* values, int amount) { values[threadIdx.x] += amount; }
__global__ void trap() { __trap(); }

__global__ void fill_shared() {
  DYNAMIC_SHARED(memory);
  SHARED_VARIABLE(own, int[32]);
  own[threadIdx.x] = reinterpret_cast<int*>(memory)[threadIdx.x] = 1;
}

// Errors as return values, as the addon sees them.
struct ReturnErrors {
  ReturnErrors() { settings.throw_errors = false; }
  ~ReturnErrors() {
    settings.throw_errors = true;
    clear_errors();
  }
};

template <class Body> std::string report_of(Body body) {
  try {
    body();
  } catch (const EmulationError& error) {
    return error.what();
  }
  return "";
}

TEST(runtime_describes_its_device) {
  int count = 0, major = 0, shared = 0;
  cudaDeviceProp properties{};
  CHECK_CUDA(cudaGetDeviceCount(&count));
  CHECK(count == 1);
  CHECK_CUDA(cudaGetDeviceProperties(&properties, 0));
  CHECK_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  CHECK_CUDA(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  CHECK(properties.major == 8 && properties.minor == 0 && major == 8);
  CHECK(properties.sharedMemPerBlockOptin == 101376 && shared == 101376);
  CHECK(std::strcmp(properties.name, "CUDA emulation on the host") == 0);
  CHECK(cudaGetDeviceProperties(&properties, 1) == cudaErrorInvalidDevice);
  CHECK(cudaGetLastError() == cudaErrorInvalidDevice);
  CHECK(cudaGetLastError() == cudaSuccess);
}

TEST(runtime_runs_out_of_memory_and_goes_on) {
  const size_t capacity = settings.device_memory;
  settings.device_memory = 1 << 20;
  size_t available = 0, total = 0;
  void *first = nullptr, *second = nullptr;
  CHECK_CUDA(cudaMalloc(&first, 700 << 10));
  const cudaError_t error = cudaMalloc(&second, 400 << 10);
  (void)cudaGetLastError();
  CHECK_CUDA(cudaMemGetInfo(&available, &total));
  CHECK_CUDA(cudaFree(first));
  const cudaError_t again = cudaMalloc(&second, 400 << 10);
  settings.device_memory = capacity;
  CHECK_CUDA(cudaFree(second));
  CHECK(error == cudaErrorMemoryAllocation && again == cudaSuccess);
  CHECK(total == 1 << 20 && available == (1 << 20) - (700 << 10));
}

TEST(runtime_does_not_hand_out_an_address_again_soon) {
  std::vector<void*> addresses;
  for (int i = 0; i < 40; ++i) {
    void* memory = nullptr;
    CHECK_CUDA(cudaMalloc(&memory, 1 << 20));
    CHECK_CUDA(cudaFree(memory));
    for (void* address : addresses) CHECK(memory != address);
    addresses.push_back(memory);
  }
}

TEST(runtime_checks_what_copies_name) {
  DeviceArray<int> device(16);
  int host[32] = {};
  const auto copy = [](void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    return report_of([=] { (void)cudaMemcpy(to, from, bytes, kind); });
  };
  CHECK(copy(device.get(), host, 64, cudaMemcpyHostToDevice).empty());
  CHECK(copy(host, device.get() + 8, 32, cudaMemcpyDefault).empty());
  CHECK(!copy(device.get(), host, 68, cudaMemcpyHostToDevice).empty());
  CHECK(!copy(device.get() + 1, host, 64, cudaMemcpyDefault).empty());
  CHECK(!copy(device.get(), host, 64, cudaMemcpyDeviceToHost).empty());
  CHECK(!copy(host, device.get(), 64, cudaMemcpyHostToDevice).empty());
  CHECK(!copy(host, host + 16, 64, cudaMemcpyDeviceToDevice).empty());
  CHECK(!report_of([&] { (void)cudaMemset(host, 0, 64); }).empty());
  CHECK(!report_of([&] { (void)cudaFree(device.get() + 1); }).empty());
  CHECK(!report_of([&] { (void)cudaFreeHost(host); }).empty());
}

TEST(runtime_keeps_a_fault_for_ever) {
  ReturnErrors errors;
  DeviceArray<int> values(std::vector<int>(32, 1));
  inject_fault(1);
  CHECK(launch(add, 1, 32, 0, nullptr, values.get(), 1) == cudaSuccess);
  CHECK(launch(add, 1, 32, 0, nullptr, values.get(), 1) == cudaErrorLaunchFailure);
  CHECK(launch(add, 1, 32, 0, nullptr, values.get(), 1) == cudaErrorLaunchFailure);
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, 4) == cudaErrorLaunchFailure);
  CHECK(cudaDeviceSynchronize() == cudaErrorLaunchFailure);
  CHECK(cudaGetLastError() == cudaErrorLaunchFailure && cudaGetLastError() == cudaErrorLaunchFailure);
  clear_errors();
  CHECK(values.download()[3] == 2);
}

TEST(runtime_explains_a_kernel_that_failed) {
  ReturnErrors errors;
  CHECK(launch(trap, 1, 32, 0, nullptr) == cudaErrorLaunchFailure);
  CHECK(last_report().find("__trap, at emulation-runtime.test.cc:") == 0);
  CHECK(std::string(cudaGetErrorString(cudaErrorLaunchFailure)).find("__trap") != std::string::npos);
  CHECK(std::string(cudaGetErrorName(cudaErrorLaunchFailure)) == "cudaErrorLaunchFailure");
}

TEST(runtime_counts_variables_among_shared_memory) {
  const auto run = [](size_t dynamic_bytes) {
    return report_of([=] {
      (void)launch_grid(reinterpret_cast<const void*>(fill_shared), 1, 32, dynamic_bytes, nullptr, fill_shared);
    });
  };
  // Variables are followed by the dynamic part at the next multiple of 1024.
  CHECK(run(47 * 1024).empty() && !run(48 * 1024).empty());
  clear_errors();
  CHECK_CUDA(launch(fill_shared, 1, 32, 48 * 1024, nullptr));
  CHECK(run(48 * 1024).empty());
  CHECK_CUDA(launch(fill_shared, 1, 32, 98 * 1024, nullptr));
  CHECK(!report_of([] { (void)launch(fill_shared, 1, 32, 99 * 1024, nullptr); }).empty());
  clear_errors();
}

TEST(runtime_copies_and_fills_on_streams) {
  cudaStream_t stream;
  cudaEvent_t start, end;
  int* host;
  float milliseconds = -1;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK_CUDA(cudaEventCreateWithFlags(&start, cudaEventDefault));
  CHECK_CUDA(cudaEventCreateWithFlags(&end, cudaEventDefault));
  CHECK_CUDA(cudaHostAlloc(&host, 128, cudaHostAllocDefault));
  CHECK(statistics().host_allocations == 1);
  DeviceArray<int> values(32);
  CHECK_CUDA(cudaEventRecord(start, stream));
  CHECK_CUDA(cudaMemsetAsync(values.get(), 0, 128, stream));
  CHECK_CUDA(launch(add, 1, 32, 0, stream, values.get(), 7));
  CHECK_CUDA(cudaMemcpyAsync(host, values.get(), 128, cudaMemcpyDeviceToHost, stream));
  CHECK_CUDA(cudaEventRecord(end, stream));
  CHECK_CUDA(cudaEventSynchronize(end));
  CHECK_CUDA(cudaEventElapsedTime(&milliseconds, start, end));
  CHECK(cudaEventQuery(end) == cudaSuccess && cudaStreamQuery(stream) == cudaSuccess);
  CHECK(milliseconds >= 0 && host[31] == 7);
  CHECK_CUDA(cudaFreeHost(host));
  CHECK_CUDA(cudaEventDestroy(start));
  CHECK_CUDA(cudaEventDestroy(end));
  CHECK_CUDA(cudaStreamDestroy(stream));
  CHECK(!report_of([&] { (void)cudaStreamSynchronize(stream); }).empty());
}

TEST(runtime_does_lazy_work_when_the_host_waits) {
  settings.lazy_streams = Lazy::Yes;
  cudaStream_t first, second;
  cudaEvent_t middle, end;
  int *early, *late;
  for (cudaStream_t* stream : {&first, &second}) CHECK_CUDA(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking));
  for (cudaEvent_t* event : {&middle, &end}) CHECK_CUDA(cudaEventCreateWithFlags(event, cudaEventDisableTiming));
  for (int** host : {&early, &late}) CHECK_CUDA(cudaHostAlloc(host, 128, cudaHostAllocDefault));
  DeviceArray<int> values(std::vector<int>(32, 1));
  const auto fetch = [&](int* to, cudaStream_t stream) {
    CHECK_CUDA(cudaMemcpyAsync(to, values.get(), 128, cudaMemcpyDeviceToHost, stream));
  };
  CHECK_CUDA(launch(add, 1, 32, 0, first, values.get(), 2));
  fetch(early, first);
  CHECK_CUDA(cudaEventRecord(middle, first));
  CHECK_CUDA(launch(add, 1, 32, 0, first, values.get(), 100));  // nobody waits for it
  CHECK_CUDA(cudaStreamWaitEvent(second, middle, 0));
  CHECK_CUDA(launch(add, 1, 32, 0, second, values.get(), 4));
  fetch(late, second);
  CHECK_CUDA(cudaEventRecord(end, second));
  CHECK(early[0] == -1 && late[0] == -1);
  CHECK(cudaEventQuery(end) == cudaErrorNotReady);
  (void)cudaGetLastError();
  CHECK(early[0] == 3 && late[0] == -1);  // the question took the time of one wait
  CHECK_CUDA(cudaEventSynchronize(end));
  CHECK(late[31] == 7 && cudaEventQuery(middle) == cudaSuccess);
  CHECK_CUDA(cudaDeviceSynchronize());
  int pageable[32] = {};
  fetch(pageable, first);  // is waited for as it is
  CHECK(pageable[31] == 107);
  for (int* host : {early, late}) CHECK_CUDA(cudaFreeHost(host));
  for (cudaEvent_t event : {middle, end}) CHECK_CUDA(cudaEventDestroy(event));
  for (cudaStream_t stream : {first, second}) CHECK_CUDA(cudaStreamDestroy(stream));
  settings.lazy_streams = Lazy::No;
}

TEST(runtime_lets_work_overtake_what_does_not_wait) {
  settings.lazy_streams = Lazy::Random;
  cudaStream_t first, second;
  cudaEvent_t event;
  for (cudaStream_t* stream : {&first, &second}) CHECK_CUDA(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking));
  CHECK_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  DeviceArray<int> values(32);
  bool orders[2][2] = {};  // whether waiting, and whether the second came before the first
  for (int waits = 0; waits < 2; ++waits) {
    for (int i = 0; i < 64; ++i) {
      CHECK_CUDA(cudaMemsetAsync(values.get(), 1, 128, first));
      CHECK_CUDA(cudaEventRecord(event, first));
      if (waits) CHECK_CUDA(cudaStreamWaitEvent(second, event, 0));
      CHECK_CUDA(cudaMemsetAsync(values.get(), 2, 128, second));
      CHECK_CUDA(cudaStreamSynchronize(first));
      CHECK_CUDA(cudaStreamSynchronize(second));
      orders[waits][values.download()[0] == 0x01010101] = true;
    }
  }
  CHECK(orders[0][0] && orders[0][1] && orders[1][0] && !orders[1][1]);
  CHECK_CUDA(cudaEventDestroy(event));
  for (cudaStream_t stream : {first, second}) CHECK_CUDA(cudaStreamDestroy(stream));
  settings.lazy_streams = Lazy::No;
}

TEST(runtime_keeps_a_fault_of_lazy_work) {
  ReturnErrors errors;
  settings.lazy_streams = Lazy::Yes;
  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK(launch(trap, 1, 32, 0, stream) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaErrorLaunchFailure);
  CHECK(cudaDeviceSynchronize() == cudaErrorLaunchFailure);
  clear_errors();
  CHECK_CUDA(cudaStreamDestroy(stream));
  settings.lazy_streams = Lazy::No;
}

TEST(runtime_captures_a_graph_over_two_streams) {
  cudaStream_t first, second;
  cudaEvent_t fork, join;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  CHECK_CUDA(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
  CHECK_CUDA(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
  CHECK_CUDA(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
  CHECK_CUDA(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
  DeviceArray<int> values(std::vector<int>(32, 0)), others(std::vector<int>(32, 0));
  int host[32] = {};
  CHECK_CUDA(cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal));
  CHECK_CUDA(launch(add, 1, 32, 0, first, values.get(), 1));
  CHECK_CUDA(cudaEventRecord(fork, first));
  CHECK_CUDA(cudaStreamWaitEvent(second, fork, 0));
  CHECK_CUDA(launch(add, 1, 32, 0, second, others.get(), 10));
  CHECK_CUDA(cudaEventRecord(join, second));
  CHECK_CUDA(cudaStreamWaitEvent(first, join, 0));
  CHECK_CUDA(cudaMemcpyAsync(host, others.get(), 128, cudaMemcpyDeviceToHost, first));
  CHECK_CUDA(cudaStreamEndCapture(first, &graph));
  CHECK(values.download()[0] == 0 && host[0] == 0);
  CHECK_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  CHECK_CUDA(cudaGraphDestroy(graph));
  for (int i = 0; i < 3; ++i) CHECK_CUDA(cudaGraphLaunch(executable, second));
  CHECK(values.download()[31] == 3 && host[31] == 30);
  CHECK_CUDA(cudaGraphExecDestroy(executable));
  CHECK_CUDA(launch(add, 1, 32, 0, second, values.get(), 1));  // no longer captured
  CHECK(values.download()[31] == 4);

  CHECK_CUDA(cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal));
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, 16) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaStreamEndCapture(first, &graph) == cudaErrorStreamCaptureInvalidated);
  CHECK_CUDA(cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal));
  CHECK(cudaStreamSynchronize(first) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaStreamEndCapture(first, &graph) == cudaErrorStreamCaptureInvalidated);
  (void)cudaGetLastError();
  CHECK_CUDA(cudaEventDestroy(fork));
  CHECK_CUDA(cudaEventDestroy(join));
  CHECK_CUDA(cudaStreamDestroy(first));
  CHECK_CUDA(cudaStreamDestroy(second));
}

__global__ void count_threads(unsigned* total) {
  SHARED_VARIABLE(own, unsigned);
  if (threadIdx.x == 0) own = 0;
  __syncthreads();
  atomicAdd(&own, 1u);
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(total, own);
}

TEST(runtime_takes_launches_from_any_thread) {
  DeviceArray<unsigned> total(std::vector<unsigned>{0});
  settings.signals = false;
  std::vector<std::thread> threads;
  std::vector<std::string> reports(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      reports[i] = report_of([&] {
        for (int repeat = 0; repeat < 25; ++repeat) CHECK_CUDA(launch(count_threads, 4, 64, 0, nullptr, total.get()));
      });
    });
  }
  for (std::thread& thread : threads) thread.join();
  settings.signals = true;
  for (const std::string& report : reports) CHECK(report.empty());
  CHECK(total.download()[0] == 4 * 25 * 4 * 64);
}

}  // namespace

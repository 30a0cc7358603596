// Every class of error that the emulation is there to find, made on purpose.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "check.h"
#include "device_array.h"
#include "emulation/settings.h"
#include "ptx.cuh"

using namespace infini::cuda;
using infini::emulation::settings;

namespace {

constexpr bool kRace = std::string_view(INFINI_VARIANT) == "race";
constexpr bool kAsan = std::string_view(INFINI_VARIANT) == "asan";
#ifdef __clang__
constexpr bool kRaceOfStructs = false;  // some versions do not report copies of structs
#else
constexpr bool kRaceOfStructs = kRace;
#endif

template <class Body> std::string report_of(Body body) {
  try {
    body();
  } catch (const infini::emulation::EmulationError& error) {
    return error.what();
  }
  return "";
}

// The report, or what a child process writes before AddressSanitizer ends it.
template <class Body> std::string memory_report_of(Body body) {
  if (!kAsan) return report_of(body);
  int ends[2];
  CHECK(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    const std::string report = report_of(body);
    if (write(2, report.data(), report.size()) < 0) _exit(1);
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t count; (count = read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, size_t(count));
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return text;
}

#define CHECK_REPORT(report, part) check_report(__FILE__, __LINE__, report, part)
void check_report(const char* file, int line, const std::string& report, const std::string& part) {
  if (report.find(part) == std::string::npos) {
    check::fail(file, line, "no '" + part + "' in the report '" + report + "'");
  }
}

std::string line(int number) { return "emulation-errors.test.cc:" + std::to_string(number); }

// Whether some schedule of those that every kernel runs under shows the error.
template <class Body> bool shows(Body body) {
  try {
    check::each_schedule(body);
  } catch (const std::exception&) {
    return true;
  }
  return false;
}

// ---- synchronisation

constexpr int kWrite = __LINE__ + 4;
__global__ void neighbours(float* results, bool synchronised) {
  SHARED_VARIABLE(values, float[64]);
  for (int round = 0; round < 2; ++round) {
    values[threadIdx.x] = float(threadIdx.x + 100 * unsigned(round));
    if (synchronised || round == 1) __syncthreads();
    results[threadIdx.x] = values[threadIdx.x ^ 32];
    __syncthreads();
  }
}
constexpr int kLastWrite = __LINE__ + 4;
__global__ void last_neighbours(float* results, bool synchronised) {
  SHARED_VARIABLE(values, float[64]);
  for (int round = 0; round < 2; ++round) {
    values[threadIdx.x] = float(threadIdx.x + 100 * unsigned(round));
    __syncthreads();
    const float value = values[threadIdx.x ^ 32];
    if (synchronised) __syncthreads();
    results[round * 64 + threadIdx.x] = value;
  }
}

void run_neighbours(void (*kernel)(float*, bool), bool synchronised) {
  DeviceArray<float> results(128);
  CHECK_CUDA(launch(kernel, 1, 64, 0, nullptr, results.get(), synchronised));
  const std::vector<float> result = results.download();
  for (int i = 0; i < 64; ++i) {
    if (kernel == neighbours) CHECK(result[i] == float((i ^ 32) + 100));
    if (kernel == last_neighbours) CHECK(result[i] == float(i ^ 32) && result[64 + i] == float((i ^ 32) + 100));
  }
}

TEST(missing_barrier_after_a_write) {
  check::each_schedule([] { run_neighbours(neighbours, true); });
  const std::string report = report_of([] { run_neighbours(neighbours, false); });
  if (kRace) {
    CHECK_REPORT(report, "shared memory");
    CHECK_REPORT(report, line(kWrite + 2));
  }
}

TEST(missing_barrier_before_the_next_write) {
  check::each_schedule([] { run_neighbours(last_neighbours, true); });
  CHECK(shows([] { run_neighbours(last_neighbours, false); }));
  if (!kRace) return;
  const std::string report = report_of([] { run_neighbours(last_neighbours, false); });
  CHECK_REPORT(report, line(kLastWrite));
  CHECK_REPORT(report, line(kLastWrite + 2));
}

__global__ void exchange_in_warp(int* results, bool synchronised) {
  SHARED_VARIABLE(values, int[32]);
  values[threadIdx.x] = int(threadIdx.x);
  if (synchronised) __syncwarp();
  results[threadIdx.x] = values[31 - threadIdx.x] + __shfl_sync(~0u, 0, 0);  // which orders nothing
}

TEST(missing_syncwarp) {
  const auto body = [](bool synchronised) {
    DeviceArray<int> results(32);
    CHECK_CUDA(launch(exchange_in_warp, 1, 32, 0, nullptr, results.get(), synchronised));
    for (int i = 0; i < 32; ++i) CHECK(results.download()[i] == 31 - i);
  };
  check::each_schedule([&] { body(true); });
  CHECK(shows([&] { body(false); }));
  if (kRace) CHECK_REPORT(report_of([&] { body(false); }), "shared memory");
}

__global__ void divergent_barrier(int* results) {
  if (threadIdx.x < 16) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  results[threadIdx.x] = 1;
}
__global__ void partial_barrier(int* results) {
  if (threadIdx.x < 16) __syncthreads();
  __syncwarp();
  results[threadIdx.x] = 1;
}
__global__ void one_line_barrier(int* results) {
  threadIdx.x < 32 ? __syncthreads() : __syncthreads();
  results[threadIdx.x] = 1;
}

__global__ void read_and_write(unsigned first, unsigned second, unsigned writer, int* results) {
  SHARED_VARIABLE(value, int);
  if (threadIdx.x == 0) value = 3;
  __syncthreads();
  if (threadIdx.x == first) results[0] = value;
  if (threadIdx.x == second) results[1] = value;
  if (threadIdx.x == writer) value = 4;
}

TEST(races_are_found_in_either_order) {
  if (!kRace) return;
  DeviceArray<int> results(2);
  const auto run = [&](unsigned first, unsigned second, unsigned writer) {
    return report_of([&] { (void)launch(read_and_write, 1, 64, 0, nullptr, first, second, writer, results.get()); });
  };
  // In order, the warp that came last to the barrier goes on.
  CHECK_REPORT(run(0, 5, 40), "read by thread 0, with no barrier since the write by thread 40");
  CHECK_REPORT(run(40, 45, 5), "write by thread 5, with no barrier since the read by thread");
  CHECK_REPORT(run(40, 45, 45), "write by thread 45, with no barrier since the read by thread 40");
}

TEST(divergent_barriers) {
  DeviceArray<int> results(64);
  for (auto schedule : {infini::emulation::Schedule::InOrder, infini::emulation::Schedule::Reverse}) {
    settings.schedule = schedule;
    CHECK_REPORT(report_of([&] { (void)launch(divergent_barrier, 1, 64, 0, nullptr, results.get()); }),
                 "divergent barrier");
    CHECK_REPORT(report_of([&] { (void)launch(one_line_barrier, 1, 64, 0, nullptr, results.get()); }),
                 "divergent barrier");
    CHECK_REPORT(report_of([&] { (void)launch(partial_barrier, 1, 32, 0, nullptr, results.get()); }), "deadlock");
  }
  settings.schedule = infini::emulation::Schedule::InOrder;
}

__global__ void wait_for_nobody() {
  if (threadIdx.x % 2) __syncwarp();
  __syncthreads();
}

TEST(deadlocks_say_who_waits_where) {
  const std::string report = report_of([] { (void)launch(wait_for_nobody, 1, 32, 0, nullptr); });
  CHECK_REPORT(report, "deadlock:");
  CHECK_REPORT(report, "16 threads are in __syncwarp at emulation-errors.test.cc");
  CHECK_REPORT(report, "16 threads are in __syncthreads at emulation-errors.test.cc");
  CHECK_REPORT(report, "wait_for_nobody");
}

// ---- collectives

__global__ void misuse_warp(int fault, int* results) {
  const unsigned lane = threadIdx.x;
  float d[4] = {};
  const uint32_t a[4] = {}, b[2] = {};
  switch (fault) {
    case 0:  // a lane outside the mask is read
      if (lane < 16) results[lane] = __shfl_sync(0xffff, int(lane), 20);
      break;
    case 1:  // the caller is not in the mask
      results[lane] = __shfl_sync(0xffff, int(lane), 0);
      break;
    case 2:  // a lane of the mask has exited
      if (lane == 31) return;
      results[lane] = __shfl_sync(~0u, int(lane), 0);
      break;
    case 3:  // one half shuffles, the other votes
      if (lane < 16) results[lane] = __shfl_sync(~0u, int(lane), 0);
      else results[lane] = int(__ballot_sync(~0u, 1));
      break;
    case 4:  // .aligned, from two places
      if (lane < 16) ptx::mma_bf16(d, a, b);
      else ptx::mma_bf16(d, a, b);
      results[lane] = int(d[0]);
      break;
    case 5:  // a lane leaves while the others wait for it
      if (lane < 31) results[lane] = __shfl_sync(~0u, int(lane), 0);
      break;
    case 6:  // the block has fewer threads
      results[lane] = __shfl_sync(~0u, int(lane), 0);
      break;
  }
}

TEST(a_mask_names_no_lanes_that_do_not_exist) {
  DeviceArray<int> results(32);
  const auto run = [&] { (void)launch(misuse_warp, 1, 20, 0, nullptr, 6, results.get()); };
  CHECK_REPORT(report_of(run), "lanes fff00000 of the mask have exited or do not exist");
}

TEST(misused_collectives) {
  const char* const reports[] = {
      "not in the mask", "the calling lane is not in the mask", "exit", "divergent warp", ".aligned", "exit"};
  DeviceArray<int> results(32);
  check::each_schedule([&] {
    for (int fault = 0; fault < 6; ++fault) {
      CHECK_REPORT(report_of([&] { (void)launch(misuse_warp, 1, 32, 0, nullptr, fault, results.get()); }),
                   reports[fault]);
    }
  });
}

// ---- cp.async and ldmatrix

constexpr int kCopy = __LINE__ + 3;
__global__ void copy_in(const float* values, float* results, int waits) {
  DYNAMIC_SHARED(memory);
  ptx::cp_async16(ptx::shared_address(memory) + threadIdx.x * 16, values + threadIdx.x * 4, 16);
  ptx::cp_async_commit();
  if (waits == 1) ptx::cp_async_wait<1>();
  if (waits == 0) ptx::cp_async_wait<0>();
  __syncthreads();
  results[threadIdx.x] = reinterpret_cast<const float*>(memory)[threadIdx.x];
}

TEST(missing_wait_for_cp_async) {
  const auto body = [](int waits) {
    DeviceArray<float> values(std::vector<float>(256, 3)), results(64);
    CHECK_CUDA(launch(copy_in, 1, 64, 1024, nullptr, values.get(), results.get(), waits));
    for (float value : results.download()) CHECK(value == 3);
  };
  check::each_schedule([&] { body(0); });
  for (int waits : {1, 2}) {
    CHECK(shows([&] { body(waits); }));
    if (kRace) CHECK_REPORT(report_of([&] { body(waits); }), "a cp.async is writing, issued at " + line(kCopy));
  }
}

__global__ void copy_and_overwrite(const float* values, float* results) {
  DYNAMIC_SHARED(memory);
  ptx::cp_async16(ptx::shared_address(memory), values, 16);
  reinterpret_cast<float*>(memory)[1] = 5;
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  results[0] = reinterpret_cast<float*>(memory)[1];
}

__global__ void clear_twice(float* results) {
  DYNAMIC_SHARED(memory);
  float* floats = reinterpret_cast<float*>(memory);
  for (int i = 0; i < 4; ++i) floats[i] = 0;
  ptx::cp_async16(ptx::shared_address(memory), results, 0);
  ptx::cp_async_commit();
  results[0] = floats[0];
}

TEST(what_a_cp_async_overwrites_is_gone_at_once) {
  DeviceArray<float> results(std::vector<float>(4, 1));
  const std::string report = report_of([&] { CHECK_CUDA(launch(clear_twice, 1, 1, 16, nullptr, results.get())); });
  if (kRace) CHECK_REPORT(report, "read of bytes that a cp.async is writing");
  else CHECK(std::isnan(results.download()[0]));
}

TEST(write_under_a_cp_async) {
  DeviceArray<float> values(std::vector<float>(4, 3)), results(1);
  const std::string report = report_of([&] {
    CHECK_CUDA(launch(copy_and_overwrite, 1, 1, 16, nullptr, values.get(), results.get()));
    CHECK(results.download()[0] == 3);
  });
  if (kRace) CHECK_REPORT(report, "write of bytes that a cp.async is writing");
}

__global__ void load_matrix(int offset, uint32_t* results) {
  DYNAMIC_SHARED(memory);
  for (unsigned i = threadIdx.x; i < 256; i += 32) reinterpret_cast<uint32_t*>(memory)[i] = i;
  __syncwarp();
  uint32_t r[4];
  ptx::ldmatrix_x4(r, uint32_t(int(ptx::shared_address(memory)) + int(threadIdx.x) * 16 + offset));
  results[threadIdx.x] = r[3];
}
__global__ void copy_misplaced(const float* values, int to, int from) {
  DYNAMIC_SHARED(memory);
  ptx::cp_async16(uint32_t(int(ptx::shared_address(memory)) + to), reinterpret_cast<const char*>(values) + from, 16);
}

TEST(ldmatrix_and_cp_async_check_their_addresses) {
  DeviceArray<uint32_t> results(32);
  const auto load = [&](int offset) {
    return report_of([&] { (void)launch(load_matrix, 1, 32, 1024, nullptr, offset, results.get()); });
  };
  CHECK(load(0).empty());
  CHECK(load(528).find("ldmatrix: out of bounds, dynamic shared memory, byte 1024 of 1024") == 0);
  CHECK(load(-16).find("ldmatrix: out of bounds, dynamic shared memory, byte -16 of 1024") == 0);
  CHECK(load(8).find("ldmatrix: misaligned") == 0);
  DeviceArray<float> values(std::vector<float>(6, 1));
  const auto copy = [&](int to, int from) {
    return report_of([&] { (void)launch(copy_misplaced, 1, 1, 64, nullptr, values.get(), to, from); });
  };
  CHECK(copy(48, 0).empty());
  CHECK(copy(64, 0).find("cp.async: out of bounds") == 0);
  CHECK(copy(8, 0).find("cp.async: misaligned") == 0);
  CHECK(copy(0, 8).find("cp.async: misaligned source") == 0);
  CHECK(copy(0, 16).find("cp.async of 16 bytes outside of device memory: byte 16 of an allocation of 24") == 0);
}

// ---- memory

constexpr int kStore = __LINE__ + 1;
__global__ void store(float* values, long index) { values[index] = 1; }
__global__ void store_shared(int index) {
  DYNAMIC_SHARED(memory);
  reinterpret_cast<float*>(memory)[index] = 1;
}

TEST(global_memory_out_of_bounds) {
  DeviceArray<float> values(26);
  const auto at = [&](long index) {
    return memory_report_of([&] { (void)launch(store, 1, 1, 0, nullptr, values.get(), index); });
  };
  CHECK(at(25).empty());
  for (long index : {26L, -1L, 28L, 1024L, -900L}) {
    const std::string report = at(index);
    CHECK(!report.empty());
    if (kAsan) continue;
    CHECK_REPORT(report, "byte " + std::to_string(index * 4) + " of an allocation of 104");
    if (kRace) CHECK_REPORT(report, line(kStore));
  }
  if (!kAsan) CHECK_REPORT(at(1024), line(kStore));  // a guard page names the line in every build
}

TEST(shared_memory_out_of_bounds) {
  const auto at = [&](int index) {
    return memory_report_of([&] { (void)launch(store_shared, 1, 1, 200, nullptr, index); });
  };
  CHECK(at(49).empty());
  for (int index : {50, 300}) CHECK(!at(index).empty());
  if (kRace || kAsan) CHECK(!at(-1).empty());
}

TEST(use_after_free) {
  float* values;
  CHECK_CUDA(cudaMalloc(&values, 400));
  CHECK_CUDA(cudaFree(values));
  const std::string report = memory_report_of([&] { (void)launch(store, 1, 1, 0, nullptr, values, 3L); });
  CHECK_REPORT(report, kAsan ? "AddressSanitizer" : "byte 12 of an allocation of 400 (freed)");
}

__global__ void misaligned_load(const float* values, float* results) {
  *reinterpret_cast<float4*>(results) = *reinterpret_cast<const float4*>(values + 1);
}

TEST(misaligned_access) {
  DeviceArray<float> values(8), results(4);
  const std::string report =
      memory_report_of([&] { (void)launch(misaligned_load, 1, 1, 0, nullptr, values.get(), results.get()); });
  if (kAsan) CHECK_REPORT(report, "misaligned address");
  if (kRaceOfStructs) CHECK_REPORT(report, "misaligned access");
}

__global__ void read_unwritten(float* results) {
  SHARED_VARIABLE(values, float[64]);
  if (threadIdx.x < 63) values[threadIdx.x] = 1;
  __syncthreads();
  results[threadIdx.x] = values[63 - threadIdx.x];
}

TEST(uninitialised_shared_memory) {
  DeviceArray<float> results(64);
  const auto run = [&] { CHECK_CUDA(launch(read_unwritten, 1, 64, 0, nullptr, results.get())); };
  if (kRace) {
    CHECK_REPORT(report_of(run), "read of shared memory that nobody has written; shared variables, byte 252");
  } else {
    run();
    CHECK(std::isnan(results.download()[0]) && results.download()[1] == 1);
  }
}

struct Padded {
  long long first;
  int second;
};
__global__ void copy_struct(Padded* results, bool initialised) {
  SHARED_VARIABLE(shared, Padded);
  if (threadIdx.x == 0) {
    shared.second = 5;
    if (initialised) shared.first = 7;
  }
  __syncthreads();
  results[threadIdx.x] = shared;
}

TEST(padding_need_not_be_written) {
  DeviceArray<Padded> results(32);
  const auto run = [&](bool initialised) {
    return report_of([&] { CHECK_CUDA(launch(copy_struct, 1, 32, 0, nullptr, results.get(), initialised)); });
  };
  CHECK(run(true).empty());
  CHECK(results.download()[31].first == 7 && results.download()[31].second == 5);
  if (kRaceOfStructs) CHECK_REPORT(run(false), "nobody has written");
}

TEST(fresh_device_memory_is_poisoned) {
  float* values;
  float host[64];
  CHECK_CUDA(cudaMalloc(&values, sizeof host));
  CHECK_CUDA(cudaMemcpy(host, values, sizeof host, cudaMemcpyDeviceToHost));
  CHECK_CUDA(cudaFree(values));
  for (float value : host) CHECK(std::isnan(value));
}

// ---- races that no schedule shows

constexpr int kIncrement = __LINE__ + 4;
__global__ void count(int* total) {
  SHARED_VARIABLE(shared, int);
  if (threadIdx.x == 0) shared = 0;
  __syncthreads();
  shared += 1;
  __syncthreads();
  if (threadIdx.x == 0) *total = shared;
}

TEST(increment_that_is_not_atomic) {
  if (!kRace) return;
  DeviceArray<int> total(1);
  check::each_schedule([&] {
    const std::string report = report_of([&] { (void)launch(count, 1, 64, 0, nullptr, total.get()); });
    CHECK_REPORT(report, "race in shared memory");
    CHECK_REPORT(report, line(kIncrement + 1));
  });
}

__global__ void share_between_blocks(int fault, int* data, unsigned* ticket, int* result) {
  SHARED_VARIABLE(last, bool);
  const unsigned thread = threadIdx.x, block = blockIdx.x;
  switch (fault) {
    case 0:  // as it should be
    case 1:  // without a fence
      data[block * 32 + thread] = int(block);
      if (fault == 0) __threadfence();
      __syncthreads();
      if (thread == 0) last = atomicAdd(ticket, 1u) == 2;
      __syncthreads();
      if (last) result[thread] = data[thread] + data[32 + thread] + data[64 + thread];
      break;
    case 2:  // two blocks write the same
      data[thread] = int(block);
      break;
    case 3:  // one reads what another writes
      if (block == 1) data[thread] = 1;
      else result[block * 32 + thread] = data[thread];
      break;
    case 4:  // neighbours in one word
      reinterpret_cast<unsigned short*>(data)[thread * 3 + block] = 1;
      break;
    case 6:  // the one who writes has read, too
      result[block * 32 + thread] = data[thread];
      if (block == 2) data[thread] = 1;
      break;
    case 5:  // within a block, without a barrier
      data[block * 32 + thread] = 1;
      result[block * 32 + thread] = data[block * 32 + (thread ^ 1)];
      break;
  }
}

TEST(races_in_global_memory) {
  if (!kRace) return;
  DeviceArray<int> data(96), result(96);
  const auto report = [&](int fault) {
    DeviceArray<unsigned> ticket(std::vector<unsigned>{0});
    return report_of(
        [&] { (void)launch(share_between_blocks, 3, 32, 0, nullptr, fault, data.get(), ticket.get(), result.get()); });
  };
  check::each_schedule([&] {
    for (int fault : {0, 4}) CHECK(report(fault).empty());
    for (int fault : {1, 2, 3, 5, 6}) CHECK_REPORT(report(fault), "race in global memory");
  });
}

// ---- threads that get nowhere, or too far

__global__ void spin_on_atomic(int* flag) {
  while (atomicAdd(flag, 0) == 0) {}
}
__global__ void spin_on_memory(volatile int* flag) {
  while (*flag == 0) {}
}

TEST(spinning_threads) {
  DeviceArray<int> flag(std::vector<int>{0});
  CHECK_REPORT(report_of([&] { (void)launch(spin_on_atomic, 1, 32, 0, nullptr, flag.get()); }), "all threads spin");
  settings.watchdog_seconds = 1;
  const std::string report = report_of([&] { (void)launch(spin_on_memory, 1, 32, 0, nullptr, flag.get()); });
  settings.watchdog_seconds = 60;
  CHECK_REPORT(report, "a thread spins");
}

__global__ void throws() { throw std::runtime_error("unexpected"); }
__global__ void traps() { __trap(); }

TEST(exceptions_and_traps) {
  CHECK_REPORT(report_of([] { (void)launch(throws, 1, 64, 0, nullptr); }), "the kernel threw an exception: unexpected");
  CHECK_REPORT(report_of([] { (void)launch(traps, 1, 64, 0, nullptr); }), "__trap");
}

TEST(the_next_launch_after_an_error_works) {
  DeviceArray<int> results(32);
  for (int repeat = 0; repeat < 3; ++repeat) {
    CHECK(!report_of([] { (void)launch(traps, 1, 64, 0, nullptr); }).empty());
    CHECK(!report_of([] { (void)launch(wait_for_nobody, 1, 32, 0, nullptr); }).empty());
    run_neighbours(neighbours, true);
  }
}

TEST(bad_launches_are_refused) {
  CHECK_REPORT(report_of([] { (void)launch(traps, 1, 1025, 0, nullptr); }), "bad block dimensions");
  CHECK_REPORT(report_of([] { (void)launch(traps, 0, 32, 0, nullptr); }), "an empty grid");
  CHECK(launch(traps, 1, 32, 100 * 1024, nullptr) == cudaErrorInvalidValue);
  CHECK_CUDA(launch(store_shared, 1, 1, 99 * 1024, nullptr, 99 * 256 - 1));
}

}  // namespace

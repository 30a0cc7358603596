// Correct kernels get correct results in every schedule, and no report from the race detector.
#include <algorithm>
#include <numeric>

#include "check.h"
#include "device_array.h"
#include "emulation/settings.h"
#include "ptx.cuh"

using namespace infini::cuda;

namespace {

template <class T> std::vector<T> random_numbers(size_t count, unsigned below) {
  auto generator = check::random();
  std::vector<T> values(count);
  for (T& value : values) value = T(generator() % below);
  return values;
}

// Several blocks alive at once, for one test.
struct Coresident {
  explicit Coresident(unsigned blocks) { infini::emulation::settings.coresident = blocks; }
  ~Coresident() { infini::emulation::settings.coresident = 1; }
};

__global__ void number_threads(int* counts) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  counts[block * 24 + thread] = int(block * 100 + thread);
}

TEST(every_thread_of_the_grid_runs_once) {
  check::each_schedule([] {
    DeviceArray<int> counts(12 * 24);
    CHECK_CUDA(launch(number_threads, dim3(2, 2, 3), dim3(2, 3, 4), 0, nullptr, counts.get()));
    const std::vector<int> result = counts.download();
    for (int i = 0; i < 12 * 24; ++i) CHECK(result[i] == i / 24 * 100 + i % 24);
  });
}

__global__ void reverse(const float* from, float* to) {
  SHARED_VARIABLE(values, float[128]);
  values[threadIdx.x] = from[blockIdx.x * 128 + threadIdx.x];
  __syncthreads();
  to[blockIdx.x * 128 + threadIdx.x] = values[127 - threadIdx.x];
}

TEST(barrier_orders_shared_memory) {
  const std::vector<float> values = random_numbers<float>(256, 1000);
  check::each_schedule([&] {
    DeviceArray<float> from(values), to(256);
    CHECK_CUDA(launch(reverse, 2, 128, 0, nullptr, from.get(), to.get()));
    const std::vector<float> result = to.download();
    for (int i = 0; i < 256; ++i) CHECK(result[i] == values[i / 128 * 128 + 127 - i % 128]);
  });
}

__global__ void count_in_barriers(const int* predicates, int* results) {
  const int own = predicates[threadIdx.x];
  if (threadIdx.x >= 96) return;  // a barrier waits for those that are left
  results[threadIdx.x] = __syncthreads_count(own != 0);
  results[96 + threadIdx.x] = __syncthreads_and(own != 0);
  results[192 + threadIdx.x] = __syncthreads_or(own > 8);
}

TEST(barriers_reduce_predicates_of_live_threads) {
  const std::vector<int> predicates = random_numbers<int>(128, 10);
  const auto end = predicates.begin() + 96;
  const int nonzero = int(96 - std::count(predicates.begin(), end, 0));
  const bool large = std::any_of(predicates.begin(), end, [](int value) { return value > 8; });
  check::each_schedule([&] {
    DeviceArray<int> input(predicates), results(288);
    CHECK_CUDA(launch(count_in_barriers, 1, 128, 0, nullptr, input.get(), results.get()));
    const std::vector<int> result = results.download();
    for (int i = 0; i < 96; ++i) {
      CHECK(result[i] == nonzero);
      CHECK((result[96 + i] != 0) == (nonzero == 96));
      CHECK((result[192 + i] != 0) == large);
    }
  });
}

__global__ void shuffle_all(const int* values, int* results, int argument, int width) {
  const int value = values[threadIdx.x];
  results[threadIdx.x] = __shfl_sync(~0u, value, argument, width);
  results[64 + threadIdx.x] = __shfl_up_sync(~0u, value, unsigned(argument), width);
  results[128 + threadIdx.x] = __shfl_down_sync(~0u, value, unsigned(argument), width);
  results[192 + threadIdx.x] = __shfl_xor_sync(~0u, value, argument, width);
}

TEST(shuffles_read_the_lane_they_name) {
  const std::vector<int> values = random_numbers<int>(64, 1 << 20);
  check::each_schedule([&] {
    for (int width : {4, 8, 16, 32}) {
      for (int argument : {0, 1, 2, 3, 5, 16, 31}) {
        DeviceArray<int> input(values), results(256);
        CHECK_CUDA(launch(shuffle_all, 1, 64, 0, nullptr, input.get(), results.get(), argument, width));
        const std::vector<int> result = results.download();
        for (int thread = 0; thread < 64; ++thread) {
          const int warp = thread / 32 * 32, lane = thread % 32, first = lane / width * width, end = first + width;
          const auto expect = [&](int source) { return values[warp + source]; };
          CHECK(result[thread] == expect(first + argument % width));
          CHECK(result[64 + thread] == expect(lane - argument >= first ? lane - argument : lane));
          CHECK(result[128 + thread] == expect(lane + argument < end ? lane + argument : lane));
          CHECK(result[192 + thread] == expect((lane ^ argument) < end ? lane ^ argument : lane));
        }
      }
    }
  });
}

__global__ void diverge(float* results) {
  SHARED_VARIABLE(values, float[4]);
  const unsigned lane = threadIdx.x;
  float value = float(lane);
  if (lane < 16) {
    value += __shfl_xor_sync(0x0000ffff, value, 8);
  } else {
    value -= __shfl_xor_sync(0xffff0000, value, 1);
  }
  if (lane < 4) {
    values[lane] = value;
    __syncwarp(0xf);
    value = values[3 - lane];
  }
  __syncwarp();
  results[lane] = value;
  const unsigned odd = __ballot_sync(~0u, lane & 1);
  results[32 + lane] = float(odd == 0xaaaaaaaa && __any_sync(~0u, lane == 7) && !__all_sync(~0u, lane == 7));
}

TEST(a_warp_may_diverge_under_masks) {
  check::each_schedule([] {
    DeviceArray<float> results(64);
    CHECK_CUDA(launch(diverge, 1, 32, 0, nullptr, results.get()));
    const std::vector<float> result = results.download();
    for (int lane = 0; lane < 32; ++lane) {
      const int source = lane < 4 ? 3 - lane : lane;
      CHECK(result[lane] == float(source < 16 ? source + (source ^ 8) : lane - (lane ^ 1)));
      CHECK(result[32 + lane] == 1);
    }
  });
}

// Two tiles of 2 KB in flight; what does not exist is zero.
__global__ void sum_tiles(const float* values, int count, float* sums) {
  DYNAMIC_SHARED(memory);
  const int thread = int(threadIdx.x), tiles = (count + 511) / 512;
  const auto load = [&](int tile) {
    const int left = (count - tile * 512 - thread * 4) * 4;
    const int bytes = left < 0 ? 0 : left < 16 ? left : 16;
    const float* from = bytes ? values + tile * 512 + thread * 4 : values;
    ptx::cp_async16(ptx::shared_address(memory) + uint32_t(tile % 2 * 2048 + thread * 16), from, bytes);
  };
  load(0);
  ptx::cp_async_commit();
  float sum = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    if (tile + 1 < tiles) load(tile + 1);
    ptx::cp_async_commit();
    ptx::cp_async_wait<1>();
    __syncthreads();
    const float* floats = reinterpret_cast<const float*>(memory + tile % 2 * 2048);
    for (int i = 0; i < 4; ++i) sum += floats[(127 - thread) * 4 + i];
    __syncthreads();
  }
  sums[thread] = sum;
}

TEST(cp_async_pipeline_delivers_every_tile) {
  using namespace infini::emulation;
  const std::vector<float> values = random_numbers<float>(1337, 100);
  for (Async async : {Async::Eager, Async::Lazy, Async::Random}) {
    check::each_schedule([&] {
      settings.async = async;
      DeviceArray<float> input(values), sums(128);
      CHECK_CUDA(launch(sum_tiles, 1, 128, 4096, nullptr, input.get(), 1337, sums.get()));
      const std::vector<float> result = sums.download();
      CHECK(std::accumulate(result.begin(), result.end(), 0.0) == std::accumulate(values.begin(), values.end(), 0.0));
    });
  }
}

__global__ void use_atomics(int* integers, unsigned long long* longs, float* floats) {
  SHARED_VARIABLE(count, int);
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 2);
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(&integers[0], count);
  atomicMax(&integers[1], int(threadIdx.x));
  atomicMin(&longs[0], 5000000000ull - threadIdx.x);
  atomicAdd(&floats[0], 0.5f);
  unsigned long long seen = 0;
  for (;;) {
    const unsigned long long before = atomicCAS(&longs[1], seen, seen + 3);
    if (before == seen) break;
    seen = before;
  }
  if (threadIdx.x == 9) integers[2] = atomicExch(&integers[3], 77);
}

TEST(atomics_lose_nothing) {
  check::each_schedule([] {
    Coresident coresident(2);
    DeviceArray<int> integers(std::vector<int>{0, -5, 0, 0});
    DeviceArray<unsigned long long> longs(std::vector<unsigned long long>{~0ull, 0});
    DeviceArray<float> floats(std::vector<float>{0});
    CHECK_CUDA(launch(use_atomics, 1, 96, 0, nullptr, integers.get(), longs.get(), floats.get()));
    const std::vector<int> integer = integers.download();
    CHECK(integer[0] == 192 && integer[1] == 95 && integer[2] == 0 && integer[3] == 77);
    const std::vector<unsigned long long> wide = longs.download();
    CHECK(wide[0] == 5000000000ull - 95 && wide[1] == 3 * 96);
    CHECK(floats.download()[0] == 48);
  });
}

template <class T> struct alignas(64) Pair {
  T values[2];
};

template <class T> __global__ void count_in_shared(T* results) {
  SHARED_VARIABLE(first, T);
  SHARED_VARIABLE(pair, Pair<T>);
  DYNAMIC_SHARED(memory);
  if (threadIdx.x == 0) {
    first = T(0);
    pair.values[1] = T(blockIdx.x);
    *reinterpret_cast<T*>(memory) = T(sizeof(T));
  }
  __syncthreads();
  atomicAdd(&first, T(1));
  __syncthreads();
  if (ptx::shared_address(&pair) % 64 != 0) __trap();
  if (threadIdx.x == 0) results[blockIdx.x] = first + pair.values[1] + *reinterpret_cast<T*>(memory);
}

TEST(shared_variables_belong_to_a_block_and_an_instance) {
  check::each_schedule([] {
    Coresident coresident(3);
    DeviceArray<float> floats(7);
    DeviceArray<double> doubles(7);
    CHECK_CUDA(launch(count_in_shared<float>, 7, 64, 16, nullptr, floats.get()));
    CHECK_CUDA(launch(count_in_shared<double>, 7, 64, 16, nullptr, doubles.get()));
    for (int block = 0; block < 7; ++block) {
      CHECK(floats.download()[block] == float(64 + block + 4));
      CHECK(doubles.download()[block] == 64 + block + 8);
    }
  });
}

// Blocks write partial sums; the last one to finish adds them up.
__global__ void reduce_in_last_block(const float* values, float* partial, unsigned* ticket, float* sum) {
  SHARED_VARIABLE(last, bool);
  const unsigned thread = threadIdx.x;
  partial[blockIdx.x * 32 + thread] = values[blockIdx.x * 32 + thread] * 2;
  __threadfence();
  __syncthreads();
  if (thread == 0) last = atomicAdd(ticket, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  float own = 0;
  for (unsigned block = 0; block < gridDim.x; ++block) own += partial[block * 32 + thread];
  for (int lanes = 16; lanes; lanes /= 2) own += __shfl_xor_sync(~0u, own, lanes);
  if (thread == 0) {
    *sum = own;
    *ticket = 0;  // for the next launch
  }
}

TEST(the_last_block_sees_what_all_have_written) {
  const std::vector<float> values = random_numbers<float>(9 * 32, 1000);
  const float expected = 2 * std::accumulate(values.begin(), values.end(), 0.0f);
  for (unsigned blocks : {1, 4}) {
    check::each_schedule([&] {
      Coresident coresident(blocks);
      DeviceArray<float> input(values), partial(values.size()), sum(1);
      DeviceArray<unsigned> ticket(std::vector<unsigned>{0});
      for (int repeat = 0; repeat < 2; ++repeat) {
        CHECK_CUDA(
            launch(reduce_in_last_block, 9, 32, 0, nullptr, input.get(), partial.get(), ticket.get(), sum.get()));
        CHECK(sum.download()[0] == expected);
        CHECK(ticket.download()[0] == 0);
      }
    });
  }
}

__global__ void wait_for_other_block(int* flag, int* message, int* result) {
  if (blockIdx.x == 0) {
    while (atomicAdd(flag, 0) == 0) {}
    *result = *message;
  } else {
    *message = 42;
    __threadfence();
    atomicExch(flag, 1);
  }
}

TEST(blocks_alive_at_once_can_wait_for_each_other) {
  check::each_schedule([] {
    Coresident coresident(2);
    DeviceArray<int> flag(std::vector<int>{0}), message(1), result(1);
    CHECK_CUDA(launch(wait_for_other_block, 2, 1, 0, nullptr, flag.get(), message.get(), result.get()));
    CHECK(result.download()[0] == 42);
  });
}

struct Parameters {
  int values[20];
};
__global__ void change_parameters(Parameters parameters, int* results) {
  parameters.values[7] += int(threadIdx.x);
  __syncwarp();
  results[threadIdx.x] = parameters.values[7];
}

TEST(every_thread_has_its_own_arguments) {
  check::each_schedule([] {
    Parameters parameters{};
    parameters.values[7] = 100;
    DeviceArray<int> results(32);
    CHECK_CUDA(launch(change_parameters, 1, 32, 0, nullptr, parameters, results.get()));
    for (int lane = 0; lane < 32; ++lane) CHECK(results.download()[lane] == 100 + lane);
    CHECK(parameters.values[7] == 100);
  });
}

__global__ void load_rows(uint32_t* sink, int stride) {
  DYNAMIC_SHARED(memory);
  for (unsigned i = threadIdx.x; i < 32u * unsigned(stride) / 4; i += 32) reinterpret_cast<uint32_t*>(memory)[i] = i;
  __syncwarp();
  uint32_t r[4];
  ptx::ldmatrix_x4(r, ptx::shared_address(memory) + threadIdx.x * uint32_t(stride));
  sink[threadIdx.x] = r[0];
}

TEST(bank_conflicts_of_ldmatrix_are_counted) {
  const auto conflicts = [](int stride) {
    DeviceArray<uint32_t> sink(32);
    const uint64_t before = infini::emulation::statistics().ldmatrix_conflicts;
    CHECK_CUDA(launch(load_rows, 1, 32, size_t(stride) * 32, nullptr, sink.get(), stride));
    return infini::emulation::statistics().ldmatrix_conflicts - before;
  };
  CHECK(conflicts(16) == 0);
  CHECK(conflicts(144) == 0);      // padded by 16 bytes
  CHECK(conflicts(128) == 4 * 7);  // all eight rows in the same banks
}

}  // namespace

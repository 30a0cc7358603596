// The layers of a model that are not attention, in float32 but for the weights, which stay as they are stored.
//
//   gather     to[i] = table[indices[i]]: the embeddings of tokens, or some rows of a tensor
//   normalize  y = x * weight / sqrt(mean(x^2) + epsilon); the mean is float64, so that no square leaves its range
//   linear     v = act(x W^T); y = v, y += v or y *= v
//
// The order of additions: the inputs fall into chunks of 32. The products of a chunk are one chain of fused
// multiply-adds that begins at 0, and the sums of the chunks are added one after the other. Both tiles of tiles.h keep
// to it, one within each thread, the other with the chunks of a step side by side; so a row's numbers are the same in
// any company.
#include "dispatch.h"
#include "kernels/elements.cuh"
#include "tiles.h"

namespace infini::cuda {
namespace {

constexpr int kRowThreads = 256;  // of gather and normalize: one block for each row

template <class T>
__global__ void __launch_bounds__(kRowThreads) gather(const T* table, const int* indices, float* to, int width) {
  const T* const from = table + (long long)indices[blockIdx.x] * width;
  to += (long long)blockIdx.x * width;
  for (int i = int(threadIdx.x); i < width; i += kRowThreads) to[i] = to_float(from[i]);
}

template <class T>
__global__ void __launch_bounds__(kRowThreads)
    normalize(const T* weight, const float* x, float* y, int width, double epsilon) {
  SHARED_VARIABLE(sums, double[kRowThreads / 32]);
  x += (long long)blockIdx.x * width;
  y += (long long)blockIdx.x * width;
  double sum = 0;
  for (int i = int(threadIdx.x); i < width; i += kRowThreads) sum = fma(double(x[i]), double(x[i]), sum);
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  double total = 0;
#pragma unroll
  for (int warp = 0; warp < kRowThreads / 32; ++warp) total += sums[warp];
  const double factor = 1.0 / sqrt(total / width + epsilon);
  for (int i = int(threadIdx.x); i < width; i += kRowThreads) y[i] = float(x[i] * factor * to_float(weight[i]));
}

// ---- linear

constexpr int kChunk = DenseTile::kChunk, kStride = DenseTile::kStride;

// One step of kRows rows of a matrix on its way to shared memory, where every chunk of every row is kStride float4.
// What does not exist is zero. A thread copies one column.
template <class E, int kRows, int kChunks, int kThreads> struct Step {
  static constexpr int kPerLoad = 16 / int(sizeof(E)), kRowLoads = kChunks * kChunk / kPerLoad;
  static constexpr int kRowsAtOnce = kThreads / kRowLoads, kLoads = kRows / kRowsAtOnce;
  static_assert(kThreads % kRowLoads == 0 && kRows % kRowsAtOnce == 0);

  alignas(16) E loaded[kLoads][kPerLoad];

  __device__ static int first_row() { return int(threadIdx.x) / kRowLoads; }
  __device__ static int column() { return int(threadIdx.x) % kRowLoads * kPerLoad; }

  // Inputs from `first` on of the first `rows` rows.
  __device__ __forceinline__ void load(const E* matrix, int rows, int inputs, int first) {
    const int left = inputs - first - column();  // from this thread's column on
    const E* from = matrix + (long long)first_row() * inputs + first + column();
    const auto columns = [&](int l) { return first_row() + l * kRowsAtOnce < rows ? left : 0; };
    if (inputs % kPerLoad == 0) {  // rows are aligned
#pragma unroll
      for (int l = 0; l < kLoads; ++l, from += (long long)kRowsAtOnce * inputs) {
        *reinterpret_cast<int4*>(loaded[l]) = columns(l) > 0 ? *reinterpret_cast<const int4*>(from) : int4{0, 0, 0, 0};
      }
    } else {
#pragma unroll
      for (int l = 0; l < kLoads; ++l, from += (long long)kRowsAtOnce * inputs) {
#pragma unroll
        for (int i = 0; i < kPerLoad; ++i) loaded[l][i] = i < columns(l) ? from[i] : from_float<E>(0.0f);
      }
    }
  }

  __device__ __forceinline__ void store(float4* to) const {
    to += (first_row() * kChunks + column() / kChunk) * kStride + column() % kChunk / 4;
#pragma unroll
    for (int l = 0; l < kLoads; ++l) {
#pragma unroll
      for (int i = 0; i < kPerLoad; i += 4) {
        to[l * kRowsAtOnce * kChunks * kStride + i / 4] = {to_float(loaded[l][i]), to_float(loaded[l][i + 1]),
                                                           to_float(loaded[l][i + 2]), to_float(loaded[l][i + 3])};
      }
    }
  }
};

// One chunk of kM rows of x times the same of kN rows of W; the next row lies x_next, w_next float4 further.
template <int kM, int kN>
__device__ __forceinline__ void multiply(float (&sum)[kM][kN], const float4* x, int x_next, const float4* w,
                                         int w_next) {
#pragma unroll 2
  for (int k = 0; k < kChunk / 4; ++k) {
    float4 b[kN];
#pragma unroll
    for (int j = 0; j < kN; ++j) b[j] = w[j * w_next + k];
#pragma unroll
    for (int i = 0; i < kM; ++i) {
      const float4 a = x[i * x_next + k];
#pragma unroll
      for (int j = 0; j < kN; ++j) {
        sum[i][j] = fmaf(a.w, b[j].w, fmaf(a.z, b[j].z, fmaf(a.y, b[j].y, fmaf(a.x, b[j].x, sum[i][j]))));
      }
    }
  }
}

// Forms that do not cancel below 0; an exponential beyond the range makes a quotient of 0.
__device__ __forceinline__ float activate(Act act, float x) {
  switch (act) {
    case Act::Silu: return x / (1.0f + expf(-x));
    case Act::Gelu: return 0.5f * x * erfcf(-0.70710678f * x);
    case Act::GeluTanh: return x / (1.0f + expf(-1.5957691f * x * fmaf(0.044715f * x, x, 1.0f)));  // 2 sqrt(2 / pi)
    default: return x;
  }
}

template <class T, bool kFew>
__global__ void __launch_bounds__(dense_tile(kFew).threads(), dense_tile(kFew).blocks)
    linear(const __grid_constant__ Linear layer) {
  constexpr DenseTile kTile = dense_tile(kFew);
  constexpr int kThreads = kTile.threads(), kChunks = kTile.chunks, kM = kTile.thread_rows, kN = kTile.thread_outputs;
  constexpr int kDown = kTile.rows / kM, kAcross = kTile.outputs / kN;  // threads
  constexpr int kSums = kTile.rows * kTile.outputs;
  SHARED_VARIABLE(xs, float4[kTile.rows * kChunks * kStride]);
  SHARED_VARIABLE(ws, float4[kTile.outputs * kChunks * kStride]);

  // Blocks that read the same W are neighbours.
  const int row_tiles = (layer.rows + kTile.rows - 1) / kTile.rows;
  const int first_row = int(blockIdx.x) % row_tiles * kTile.rows;
  const int first_output = int(blockIdx.x) / row_tiles * kTile.outputs;
  const int rows = min(layer.rows - first_row, kTile.rows), outputs = min(layer.outputs - first_output, kTile.outputs);
  const auto put = [&](int row, int output, float sum) {
    if (row >= rows || output >= outputs) return;
    float& y = layer.y[(long long)(first_row + row) * layer.outputs + first_output + output];
    const float v = activate(layer.act, sum);
    y = layer.into == Into::Store ? v : layer.into == Into::Add ? y + v : y * v;
  };

  // A warp has 8 outputs of 4 rows where a step is one chunk: few different numbers for each load.
  const int chunk = int(threadIdx.x) % kChunks, thread = int(threadIdx.x) / kChunks;
  const int output = thread % 8 + thread / 32 % (kAcross / 8) * 8;
  const int row = thread / 8 % 4 + thread / 32 / (kAcross / 8) * 4;

  const float* const x = layer.x + (long long)first_row * layer.inputs;
  const T* const w = static_cast<const T*>(layer.weight) + (long long)first_output * layer.inputs;
  Step<float, kTile.rows, kChunks, kThreads> x_step;
  Step<T, kTile.outputs, kChunks, kThreads> w_step;
  const auto load = [&](int first) {
    x_step.load(x, rows, layer.inputs, first);
    w_step.load(w, outputs, layer.inputs, first);
  };

  float total[kM][kN] = {};  // with several chunks: total[0][0], of the first threads
  load(0);
#pragma unroll 1
  for (int first = 0; first < layer.inputs; first += kChunks * kChunk) {
    x_step.store(xs);
    w_step.store(ws);
    __syncthreads();
    load(first + kChunks * kChunk);  // while this step is multiplied; behind the last one there is nothing
    float sum[kM][kN] = {};
    multiply(sum, xs + (row * kChunks + chunk) * kStride, kDown * kChunks * kStride,
             ws + (output * kChunks + chunk) * kStride, kAcross * kChunks * kStride);
    if constexpr (kChunks == 1) {
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kM; ++i) {
#pragma unroll
        for (int j = 0; j < kN; ++j) total[i][j] += sum[i][j];
      }
    } else {
      SHARED_VARIABLE(sums, float[kChunks][kSums + 1]);
#pragma unroll
      for (int i = 0; i < kM; ++i) {
#pragma unroll
        for (int j = 0; j < kN; ++j) sums[chunk][(row + i * kDown) * kTile.outputs + output + j * kAcross] = sum[i][j];
      }
      __syncthreads();
      if (int(threadIdx.x) < kSums) {
#pragma unroll
        for (int c = 0; c < kChunks; ++c) total[0][0] += sums[c][threadIdx.x];
      }
    }
  }

  if constexpr (kChunks == 1) {
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int j = 0; j < kN; ++j) put(row + i * kDown, output + j * kAcross, total[i][j]);
    }
  } else {
    static_assert(kSums <= kThreads);
    if (int(threadIdx.x) < kSums) put(int(threadIdx.x) / kTile.outputs, int(threadIdx.x) % kTile.outputs, total[0][0]);
  }
}

}  // namespace

cudaError_t launch_linear(const Linear& layer, cudaStream_t stream) {
  if (layer.rows == 0) return cudaSuccess;
  return dispatch_element(layer.element, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto launch_tiles = [&](auto few) {
      constexpr DenseTile kTile = dense_tile(few);
      const unsigned row_tiles = unsigned((layer.rows + kTile.rows - 1) / kTile.rows);
      const unsigned output_tiles = unsigned((layer.outputs + kTile.outputs - 1) / kTile.outputs);
      return launch(linear<T, few>, dim3(row_tiles * output_tiles), dim3(kTile.threads()), 0, stream, layer);
    };
    return layer.rows <= kFewRows ? launch_tiles(std::true_type()) : launch_tiles(std::false_type());
  });
}

cudaError_t launch_normalize(Element element, const void* weight, const float* x, float* y, int width, int rows,
                             double epsilon, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return dispatch_element(element, [&](auto type) {
    using T = typename decltype(type)::type;
    return launch(normalize<T>, dim3(unsigned(rows)), dim3(kRowThreads), 0, stream, static_cast<const T*>(weight), x, y,
                  width, epsilon);
  });
}

cudaError_t launch_gather(Element element, const void* table, const int* indices, float* to, int width, int rows,
                          cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return dispatch_element(element, [&](auto type) {
    using T = typename decltype(type)::type;
    return launch(gather<T>, dim3(unsigned(rows)), dim3(kRowThreads), 0, stream, static_cast<const T*>(table), indices,
                  to, width);
  });
}

}  // namespace infini::cuda

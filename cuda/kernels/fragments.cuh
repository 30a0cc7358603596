// Matrix products of one warp on tensor cores: acc[16][8] += A[16][16] B[16][8], one spelling for every type.
//
// Fragments<T> knows what each lane holds (g = lane / 4, t = lane % 4):
//   acc: rows g and g + 8, columns 2t and 2t + 1: {(g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1)}
//   A and B: as mma.sync m16n8k16 wants them (16-bit types), or two m16n8k8 (float32).
// Loads come in four kinds, by how the operand lies in its matrix (a Tile or Rows):
//   load_a             A stored [m][k]        load_b             B stored [n][k], two neighbouring B (16 n)
//   load_a_transposed  A stored [k][m]        load_b_transposed  B stored [k][n], two neighbouring B (16 n)
//
// float32 is multiplied as 3xTF32: x = high + low, x y = high high + high low + low high, an error of 2^-21 of the
// product. The sixteen products of a step are summed on the tensor core from zero and added to acc in round-to-nearest:
// tensor cores cut their sums, and a long chain of cuts is a bias.
#pragma once

#include "kernels/tile.cuh"

namespace infini::cuda {

__device__ __forceinline__ int lane_id() { return int(threadIdx.x) & 31; }

// In which order the k of a step are dealt to lanes: only float32 cares. Both operands of a product use the same.
enum class Order { Natural, Accumulator };

template <class T> struct Fragments {  // bfloat16 and float16
  struct A {
    uint32_t r[4];
  };
  struct B {
    uint32_t r[2];
  };

  template <class Matrix> __device__ static void load_a(A& a, const Matrix& tile, int row, int column) {
    const int lane = lane_id();
    ptx::ldmatrix_x4(a.r, tile.address(row, column / 8, lane & 15, lane >> 4));
  }
  template <class Matrix> __device__ static void load_a_transposed(A& a, const Matrix& tile, int k, int m) {
    const int lane = lane_id();
    ptx::ldmatrix_x4_trans(a.r, tile.address(k, m / 8, (lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1));
  }
  template <class Matrix> __device__ static void load_b(B (&b)[2], const Matrix& tile, int n, int k) {
    const int lane = lane_id();
    uint32_t r[4];
    ptx::ldmatrix_x4(r, tile.address(n, k / 8, (lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1));
    b[0] = {{r[0], r[1]}};
    b[1] = {{r[2], r[3]}};
  }
  template <Order = Order::Natural, class Matrix>
  __device__ static void load_b_transposed(B (&b)[2], const Matrix& tile, int k, int n) {
    const int lane = lane_id();
    uint32_t r[4];
    ptx::ldmatrix_x4_trans(r, tile.address(k, n / 8, lane & 15, lane >> 4));
    b[0] = {{r[0], r[1]}};
    b[1] = {{r[2], r[3]}};
  }

  // Two neighbouring accumulators, 16 x 16, as the A of the next product (Order::Accumulator).
  __device__ static void from_accumulators(A& a, const float (&left)[4], const float (&right)[4]) {
    a.r[0] = pack_rounded<T>(left[0], left[1]);
    a.r[1] = pack_rounded<T>(left[2], left[3]);
    a.r[2] = pack_rounded<T>(right[0], right[1]);
    a.r[3] = pack_rounded<T>(right[2], right[3]);
  }

  // The element of A[row][k] that sits at place i (0..7) of this lane: row g + 8 * row_half(i), column k + column(i).
  static constexpr int kElements = 8;
  __device__ static int row_half(int i) { return (i >> 1) & 1; }
  __device__ static int column(int i) { return 2 * (lane_id() & 3) + (i & 1) + ((i >> 2) << 3); }
  __device__ static float get(const A& a, int i) {
    const uint16_t bits = uint16_t(a.r[i >> 1] >> ((i & 1) * 16));
    if constexpr (sizeof(T) == 2 && __is_same(T, bfloat16)) {
      return to_float(__ushort_as_bfloat16(bits));
    } else {
      return to_float(__ushort_as_half(bits));
    }
  }
  __device__ static void set(A& a, const float (&x)[kElements]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) a.r[i] = pack_rounded<T>(x[2 * i], x[2 * i + 1]);
  }

  __device__ static void multiply(float (&acc)[4], const A& a, const B& b) {
    if constexpr (__is_same(T, bfloat16)) {
      ptx::mma_bf16(acc, a.r, b.r);
    } else {
      ptx::mma_f16(acc, a.r, b.r);
    }
  }
};

template <> struct Fragments<float> {
  // [step of 8 k][place in mma.m16n8k8]. Natural: lane t holds k = t and t + 4. Accumulator: k = 2t and 2t + 1.
  struct A {
    float x[2][4];
  };
  struct B {
    float x[2][2];
  };
  template <Order order> __device__ static int k_of(int half) {
    const int t = lane_id() & 3;
    return order == Order::Natural ? t + 4 * half : 2 * t + half;
  }

  template <class Matrix> __device__ static void load_a(A& a, const Matrix& tile, int row, int column) {
    const int lane = lane_id();
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      uint32_t r[4];  // 8 rows x 16 bytes are 8 x 4 floats: each lane gets the one at (g, t)
      ptx::ldmatrix_x4(r, tile.address(row, column / 4 + 2 * step, lane & 15, lane >> 4));
#pragma unroll
      for (int i = 0; i < 4; ++i) a.x[step][i] = __uint_as_float(r[i]);
    }
  }
  template <class Matrix> __device__ static void load_a_transposed(A& a, const Matrix& tile, int k, int m) {
    const int g = lane_id() >> 2;
#pragma unroll
    for (int step = 0; step < 2; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a.x[step][i] = tile.at(k + 8 * step + k_of<Order::Natural>(i >> 1), m + g + 8 * (i & 1));
      }
    }
  }
  template <class Matrix> __device__ static void load_b(B (&b)[2], const Matrix& tile, int n, int k) {
    const int lane = lane_id();
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      uint32_t r[4];
      ptx::ldmatrix_x4(r, tile.address(n, k / 4 + 2 * step, (lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1));
      b[0].x[step][0] = __uint_as_float(r[0]);
      b[0].x[step][1] = __uint_as_float(r[1]);
      b[1].x[step][0] = __uint_as_float(r[2]);
      b[1].x[step][1] = __uint_as_float(r[3]);
    }
  }
  template <Order order = Order::Natural, class Matrix>
  __device__ static void load_b_transposed(B (&b)[2], const Matrix& tile, int k, int n) {
    const int g = lane_id() >> 2;
#pragma unroll
    for (int step = 0; step < 2; ++step) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = k + 8 * step + k_of<order>(half);
        b[0].x[step][half] = tile.at(row, n + g);
        b[1].x[step][half] = tile.at(row, n + 8 + g);
      }
    }
  }

  __device__ static void from_accumulators(A& a, const float (&left)[4], const float (&right)[4]) {
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      const float(&from)[4] = step == 0 ? left : right;
      a.x[step][0] = from[0];
      a.x[step][1] = from[2];
      a.x[step][2] = from[1];
      a.x[step][3] = from[3];
    }
  }

  static constexpr int kElements = 8;
  __device__ static int row_half(int i) { return i & 1; }
  __device__ static int column(int i) { return (lane_id() & 3) + 4 * ((i >> 1) & 1) + 8 * (i >> 2); }
  __device__ static float get(const A& a, int i) { return a.x[i >> 2][i & 3]; }
  __device__ static void set(A& a, const float (&x)[kElements]) {
#pragma unroll
    for (int i = 0; i < kElements; ++i) a.x[i >> 2][i & 3] = x[i];
  }

  __device__ static void multiply(float (&acc)[4], const A& a, const B& b) {
    float part[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      uint32_t a_high[4], a_low[4], b_high[2], b_low[2];
#pragma unroll
      for (int i = 0; i < 4; ++i) split_tf32(a.x[step][i], a_high[i], a_low[i]);
#pragma unroll
      for (int i = 0; i < 2; ++i) split_tf32(b.x[step][i], b_high[i], b_low[i]);
      ptx::mma_tf32(part, a_low, b_high);
      ptx::mma_tf32(part, a_high, b_low);
      ptx::mma_tf32(part, a_high, b_high);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) acc[i] += part[i];
  }

  // The high part is cut, so that it cannot overflow. Tensor cores cut the low part: half a unit more rounds it, or cuts
  // would add up to a bias.
  __device__ static void split_tf32(float x, uint32_t& high, uint32_t& low) {
    high = __float_as_uint(x) & 0xffffe000u;
    low = __float_as_uint(x - __uint_as_float(high)) + 0x1000;
  }
};

__device__ __forceinline__ void clear(float (&acc)[4]) { acc[0] = acc[1] = acc[2] = acc[3] = 0.0f; }

}  // namespace infini::cuda

// The 16-bit types and the instructions of cuda/ptx.cuh against plain loops, on the layouts that its header gives: on
// the emulation, and on a GPU.
#include <bit>
#include <cstring>

#include "check.h"
#include "device_array.h"
#include "ptx.cuh"

using namespace infini::cuda;

namespace {

// ---- conversions

double float16_value(unsigned bits) {
  const int exponent = int(bits >> 10 & 31), mantissa = int(bits & 1023);
  const double sign = bits >> 15 ? -1 : 1;
  if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24));
}
double bfloat16_value(unsigned bits) { return std::bit_cast<float>(bits << 16); }

unsigned round_to_float16(float value) { return __half_as_ushort(__float2half_rn(value)); }
unsigned round_to_bfloat16(float value) { return __bfloat16_as_ushort(__float2bfloat16_rn(value)); }

// `decode` gives the value of a positive pattern up to `infinity`; `round` is under test. Between two neighbours the
// midpoint goes to the even one and everything else to the nearer.
void check_rounding(double (*decode)(unsigned), unsigned (*round)(float), unsigned infinity) {
  for (unsigned sign : {0u, 0x8000u}) {
    const auto signed_float = [&](double value) { return float(sign ? -value : value); };
    for (unsigned low = 0; low < infinity; ++low) {
      const double below = decode(low);
      CHECK(round(signed_float(below)) == (sign | low));
      // Beyond the largest number the next step decides what becomes infinite.
      const double above = low + 1 < infinity ? decode(low + 1) : 2 * below - decode(low - 1);
      const float middle = float((below + above) / 2);
      if (double(middle) != (below + above) / 2) continue;  // not a float32: bfloat16's least subnormals
      CHECK(round(signed_float(middle)) == (sign | (low % 2 ? low + 1 : low)));
      CHECK(round(signed_float(std::nextafter(middle, 0.0f))) == (sign | low));
      CHECK(round(signed_float(std::nextafter(middle, INFINITY))) == (sign | (low + 1)));
    }
    CHECK(round(signed_float(INFINITY)) == (sign | infinity));
  }
  CHECK(round(NAN) == 0x7fff && round(-NAN) == 0x7fff);
  CHECK(round(std::bit_cast<float>(0xff800001u)) == 0x7fff);
}

TEST(ptx_float16_conversions) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const double expected = float16_value(bits), actual = __half2float(__ushort_as_half(uint16_t(bits)));
    CHECK(std::isnan(expected) ? std::isnan(actual)
                               : expected == actual && std::signbit(expected) == std::signbit(actual));
  }
  check_rounding(float16_value, round_to_float16, 0x7c00);
}

TEST(ptx_bfloat16_conversions) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const float actual = __bfloat162float(__ushort_as_bfloat16(uint16_t(bits)));
    CHECK(std::bit_cast<uint32_t>(actual) == bits << 16);
  }
  check_rounding(bfloat16_value, round_to_bfloat16, 0x7f80);
  const __nv_bfloat162 pair = __floats2bfloat162_rn(1.0f, -2.0f);
  uint32_t bits;
  std::memcpy(&bits, &pair, 4);
  CHECK(bits == 0xc0003f80);
}

// ---- mma

enum class Kind { Bfloat16, Float16, Tf32 };

// A [16][K] and B [K][8] row-major in float32, exact in the kind; D [16][8] += A B.
__global__ void multiply(Kind kind, const float* a, const float* b, float* d) {
  const int g = int(threadIdx.x) / 4, t = int(threadIdx.x) % 4;
  float sums[4];
  for (int i = 0; i < 4; ++i) sums[i] = d[(g + i / 2 * 8) * 8 + t * 2 + i % 2];
  uint32_t left[4], right[2];
  if (kind == Kind::Tf32) {
    for (int i = 0; i < 4; ++i) left[i] = __float_as_uint(a[(g + i % 2 * 8) * 8 + t + i / 2 * 4]);
    for (int i = 0; i < 2; ++i) right[i] = __float_as_uint(b[(t + i * 4) * 8 + g]);
    ptx::mma_tf32(sums, left, right);
  } else {
    const auto pack = [&](float low, float high) {
      return kind == Kind::Bfloat16 ? uint32_t(__bfloat16_as_ushort(__float2bfloat16_rn(low))) |
                                          uint32_t(__bfloat16_as_ushort(__float2bfloat16_rn(high))) << 16
                                    : uint32_t(__half_as_ushort(__float2half_rn(low))) |
                                          uint32_t(__half_as_ushort(__float2half_rn(high))) << 16;
    };
    for (int i = 0; i < 4; ++i) {
      const float* pair = a + (g + i % 2 * 8) * 16 + t * 2 + i / 2 * 8;
      left[i] = pack(pair[0], pair[1]);
    }
    for (int i = 0; i < 2; ++i) right[i] = pack(b[(t * 2 + i * 8) * 8 + g], b[(t * 2 + i * 8 + 1) * 8 + g]);
    if (kind == Kind::Bfloat16) ptx::mma_bf16(sums, left, right);
    else ptx::mma_f16(sums, left, right);
  }
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = sums[i];
}

std::vector<float> multiply(Kind kind, const std::vector<float>& a, const std::vector<float>& b,
                            const std::vector<float>& d) {
  DeviceArray<float> left(a), right(b), sums(d);
  CHECK_CUDA(launch(multiply, 1, 32, 0, nullptr, kind, left.get(), right.get(), sums.get()));
  return sums.download();
}

TEST(ptx_mma_of_integers_is_exact) {
  auto generator = check::random();
  const auto integers = [&](size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = float(int(generator() % 201) - 100);
    return values;
  };
  for (Kind kind : {Kind::Bfloat16, Kind::Float16, Kind::Tf32}) {
    const int depth = kind == Kind::Tf32 ? 8 : 16;
    const std::vector<float> a = integers(size_t(16 * depth)), b = integers(size_t(depth * 8)), d = integers(128);
    check::each_schedule([&] {
      const std::vector<float> result = multiply(kind, a, b, d);
      for (int i = 0; i < 16; ++i) {
        for (int j = 0; j < 8; ++j) {
          double expected = d[i * 8 + j];
          for (int k = 0; k < depth; ++k) expected += double(a[i * depth + k]) * b[k * 8 + j];
          CHECK(result[i * 8 + j] == expected);
        }
      }
    });
  }
}

TEST(ptx_mma_keeps_what_is_not_finite) {
  for (Kind kind : {Kind::Bfloat16, Kind::Float16, Kind::Tf32}) {
    const int depth = kind == Kind::Tf32 ? 8 : 16;
    std::vector<float> a(size_t(16 * depth), 1), b(size_t(depth * 8), 1), d(128, 0);
    a[3 * depth + 2] = NAN;
    a[5 * depth + 7] = INFINITY;
    b[4 * 8 + 6] = -INFINITY;
    d[15 * 8] = NAN;
    const std::vector<float> result = multiply(kind, a, b, d);
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < 8; ++j) {
        const float value = result[i * 8 + j];
        if (i == 3 || (i == 15 && j == 0) || (i == 5 && j == 6)) CHECK(std::isnan(value));
        else if (i == 5) CHECK(value == INFINITY);
        else if (j == 6) CHECK(value == -INFINITY);
        else CHECK(value == float(depth));
      }
    }
  }
}

TEST(ptx_tf32_ignores_the_low_bits) {
  auto generator = check::random();
  std::vector<float> a(128), b(64), cut_a(128), cut_b(64);
  const auto fill = [&](std::vector<float>& values, std::vector<float>& cut) {
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = float(int(generator() % 2000001) - 1000000) / 777777;
      cut[i] = std::bit_cast<float>(std::bit_cast<uint32_t>(values[i]) & 0xffffe000);
    }
  };
  fill(a, cut_a);
  fill(b, cut_b);
  const std::vector<float> zero(128, 0);
  CHECK(multiply(Kind::Tf32, a, b, zero) == multiply(Kind::Tf32, cut_a, cut_b, zero));
}

// ---- ldmatrix, alone and before an mma

__global__ void load_four(const uint16_t* values, uint32_t* plain, uint32_t* transposed) {
  DYNAMIC_SHARED(memory);
  uint16_t* shared = reinterpret_cast<uint16_t*>(memory);
  for (unsigned i = threadIdx.x; i < 256; i += 32) shared[i] = values[i];
  __syncwarp();
  // Rows in an order that is none.
  const uint32_t address = ptx::shared_address(memory) + (threadIdx.x * 7 + 3) % 32 * 16;
  uint32_t r[4];
  ptx::ldmatrix_x4(r, address);
  for (int i = 0; i < 4; ++i) plain[threadIdx.x * 4 + unsigned(i)] = r[i];
  ptx::ldmatrix_x4_trans(r, address);
  for (int i = 0; i < 4; ++i) transposed[threadIdx.x * 4 + unsigned(i)] = r[i];
}

TEST(ptx_ldmatrix_moves_rows_and_columns) {
  std::vector<uint16_t> values(256);
  auto generator = check::random();
  for (uint16_t& value : values) value = uint16_t(generator());
  check::each_schedule([&] {
    DeviceArray<uint16_t> input(values);
    DeviceArray<uint32_t> plain(128), transposed(128);
    CHECK_CUDA(launch(load_four, 1, 32, 512, nullptr, input.get(), plain.get(), transposed.get()));
    const std::vector<uint32_t> rows = plain.download(), columns = transposed.download();
    const auto element = [&](int matrix, int row, int column) {
      return uint32_t(values[size_t(((matrix * 8 + row) * 7 + 3) % 32 * 8 + column)]);
    };
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const int g = lane / 4, t = lane % 4 * 2;
        CHECK(rows[lane * 4 + i] == (element(i, g, t) | element(i, g, t + 1) << 16));
        CHECK(columns[lane * 4 + i] == (element(i, t, g) | element(i, t + 1, g) << 16));
      }
    }
  });
}

// D [16][16] = A [16][16] B [16][16], all row-major: fragments of A by ldmatrix, those of B by ldmatrix_trans.
__global__ void multiply_from_shared(const __nv_bfloat16* a, const __nv_bfloat16* b, float* d) {
  DYNAMIC_SHARED(memory);
  const unsigned lane = threadIdx.x;
  __nv_bfloat16* shared = reinterpret_cast<__nv_bfloat16*>(memory);
  for (unsigned i = lane; i < 256; i += 32) {
    shared[i] = a[i];
    shared[256 + i] = b[i];
  }
  __syncwarp();
  const uint32_t row_and_half = lane % 16 * 32 + lane / 16 * 16;
  uint32_t left[4], right[4];
  ptx::ldmatrix_x4(left, ptx::shared_address(memory) + row_and_half);
  ptx::ldmatrix_x4_trans(right, ptx::shared_address(memory) + 512 + row_and_half);
  for (unsigned half = 0; half < 2; ++half) {
    float sums[4] = {};
    const uint32_t columns[2] = {right[half * 2], right[half * 2 + 1]};
    ptx::mma_bf16(sums, left, columns);
    for (unsigned i = 0; i < 4; ++i) d[(lane / 4 + i / 2 * 8) * 16 + half * 8 + lane % 4 * 2 + i % 2] = sums[i];
  }
}

TEST(ptx_ldmatrix_feeds_mma) {
  auto generator = check::random();
  std::vector<__nv_bfloat16> a(256), b(256);
  for (auto* values : {&a, &b}) {
    for (__nv_bfloat16& value : *values) value = __float2bfloat16_rn(float(int(generator() % 41) - 20));
  }
  check::each_schedule([&] {
    DeviceArray<__nv_bfloat16> left(a), right(b);
    DeviceArray<float> sums(256);
    CHECK_CUDA(launch(multiply_from_shared, 1, 32, 1024, nullptr, left.get(), right.get(), sums.get()));
    const std::vector<float> result = sums.download();
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < 16; ++j) {
        float expected = 0;
        for (int k = 0; k < 16; ++k) expected += __bfloat162float(a[i * 16 + k]) * __bfloat162float(b[k * 16 + j]);
        CHECK(result[i * 16 + j] == expected);
      }
    }
  });
}

// ---- exp2

__global__ void exponentials(const float* x, float* y, int count) {
  for (int i = int(threadIdx.x); i < count; i += 32) y[i] = ptx::exp2_approx(x[i]);
}

TEST(ptx_exp2_is_close_and_flushes) {
  auto generator = check::random();
  std::vector<float> x;
  for (int i = 0; i < 4000; ++i) x.push_back(float(std::ldexp(double(generator() % 2000001) - 1000000, -13)));
  for (float special : {0.0f, -0.0f, 1e-40f, -126.0f, -126.5f, -140.0f, 127.999f, 128.0f, INFINITY, -INFINITY, NAN}) {
    x.push_back(special);
  }
  DeviceArray<float> input(x), output(x.size());
  CHECK_CUDA(launch(exponentials, 1, 32, 0, nullptr, input.get(), output.get(), int(x.size())));
  const std::vector<float> y = output.download();
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp2(double(x[i]));
    if (std::isnan(x[i])) CHECK(std::isnan(y[i]));
    else if (expected < 0x1p-126) CHECK(y[i] == 0);
    else if (expected >= 0x1p128) CHECK(y[i] == INFINITY);
    else CHECK_CLOSE(y[i] / expected, 1, 0x1p-21);
  }
}

}  // namespace

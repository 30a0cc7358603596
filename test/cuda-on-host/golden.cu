// What the instructions of cuda/ptx.cuh do on a real GPU, as a file; and whether the emulation does the same.
//
//   golden write FILE   on a GPU only: runs every case and writes the results, with where and when they were obtained
//   golden check FILE   on a GPU or on the emulation: runs every case and compares
//
// Inputs come from a fixed generator, so the file holds results alone: 32-bit words in hexadecimal. Words that were
// only moved or converted must be the same bit for bit; sums of products and powers of two lie within a bound.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "device_array.h"
#include "ptx.cuh"

#ifdef INFINI_EMULATION
#include "emulation/settings.h"
#endif

using namespace infini::cuda;

namespace {

using Words = std::vector<uint32_t>;

enum Kind { kBfloat16, kFloat16, kTf32 };

// ---- kernels: one warp, `in` and `out` per lane

__global__ void run_mma(Kind kind, const uint32_t* in, uint32_t* out) {
  const unsigned lane = threadIdx.x;
  uint32_t a[4], b[2];
  float d[4];
  for (unsigned i = 0; i < 4; ++i) a[i] = in[lane * 10 + i];
  for (unsigned i = 0; i < 2; ++i) b[i] = in[lane * 10 + 4 + i];
  for (unsigned i = 0; i < 4; ++i) d[i] = __uint_as_float(in[lane * 10 + 6 + i]);
  if (kind == kBfloat16) ptx::mma_bf16(d, a, b);
  if (kind == kFloat16) ptx::mma_f16(d, a, b);
  if (kind == kTf32) ptx::mma_tf32(d, a, b);
  for (unsigned i = 0; i < 4; ++i) out[lane * 4 + i] = __float_as_uint(d[i]);
}

__global__ void run_ldmatrix(const uint32_t* in, uint32_t* out) {
  DYNAMIC_SHARED(memory);
  const unsigned lane = threadIdx.x;
  for (unsigned i = lane; i < 128; i += 32) reinterpret_cast<uint32_t*>(memory)[i] = in[i];
  __syncwarp();
  const uint32_t address = ptx::shared_address(memory) + (lane * 7 + 3) % 32 * 16;
  uint32_t r[4];
  ptx::ldmatrix_x4(r, address);
  for (unsigned i = 0; i < 4; ++i) out[lane * 8 + i] = r[i];
  ptx::ldmatrix_x4_trans(r, address);
  for (unsigned i = 0; i < 4; ++i) out[lane * 8 + 4 + i] = r[i];
}

// Every number of bytes from 0 to 16, in two groups that are waited for one after the other.
__global__ void run_cp_async(const uint32_t* in, uint32_t* out) {
  DYNAMIC_SHARED(memory);
  const unsigned lane = threadIdx.x;
  const uint32_t to = ptx::shared_address(memory) + lane * 16;
  ptx::cp_async16(to, in + lane * 4, int(lane % 17));
  ptx::cp_async_commit();
  ptx::cp_async16(to + 512, in + 128 + (31 - lane) * 4, int((lane + 9) % 17));
  ptx::cp_async_commit();
  ptx::cp_async_wait<1>();
  __syncthreads();
  for (unsigned i = 0; i < 4; ++i) out[lane * 8 + i] = reinterpret_cast<uint32_t*>(memory)[(31 - lane) * 4 + i];
  ptx::cp_async_wait<0>();
  __syncthreads();
  for (unsigned i = 0; i < 4; ++i) out[lane * 8 + 4 + i] = reinterpret_cast<uint32_t*>(memory)[128 + lane * 4 + i];
}

__global__ void run_shuffles(const uint32_t* in, uint32_t* out) {
  const unsigned lane = threadIdx.x;
  const uint32_t value = in[lane];
  unsigned at = 0;
  for (int width = 1; width <= 32; width *= 2) {
    for (int argument = 0; argument < 6; ++argument) {
      out[at++ * 32 + lane] = __shfl_sync(~0u, value, argument * 5, width);
      out[at++ * 32 + lane] = __shfl_up_sync(~0u, value, unsigned(argument), width);
      out[at++ * 32 + lane] = __shfl_down_sync(~0u, value, unsigned(argument), width);
      out[at++ * 32 + lane] = __shfl_xor_sync(~0u, value, argument * 3, width);
    }
  }
}

__global__ void run_conversions(const uint32_t* in, uint32_t* out) {
  const unsigned lane = threadIdx.x;
  for (unsigned i = lane; i < 256; i += 32) {
    const float value = __uint_as_float(in[i]);
    const unsigned bfloat16 = __bfloat16_as_ushort(__float2bfloat16_rn(value));
    const unsigned float16 = __half_as_ushort(__float2half_rn(value));
    out[i] = bfloat16 | float16 << 16;
    const float widened = __half2float(__ushort_as_half(static_cast<unsigned short>(in[i] >> 16)));
    out[256 + i] = widened == widened ? __float_as_uint(widened) : 0x7fffffff;  // whichever NaN it is
  }
}

__global__ void run_exp2(const uint32_t* in, uint32_t* out) {
  for (unsigned i = threadIdx.x; i < 512; i += 32) out[i] = __float_as_uint(ptx::exp2_approx(__uint_as_float(in[i])));
}

// ---- inputs

class Generator {
 public:
  uint32_t operator()() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return uint32_t(state_ >> 33);
  }
  // From -2 to 2, in steps of 1/512.
  float number() { return float(int((*this)() % 2049) - 1024) / 512; }

 private:
  uint64_t state_ = 20240229;
};

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// What an mma operand may hold: its kind's bits for a number.
uint32_t operand(Kind kind, float value) {
  if (kind == kTf32) return bits_of(value);
  return encode(kind == kBfloat16 ? Element::BFloat16 : Element::Float16, value);
}

// Operands of one mma per lane: a[4], b[2], d[4]. `pick` gives a number and `sum` one to add to.
template <class Pick, class Sum> Words mma_input(Kind kind, Pick pick, Sum sum) {
  Words words;
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 6; ++i) {
      const uint32_t low = operand(kind, pick());
      words.push_back(kind == kTf32 ? low : low | operand(kind, pick()) << 16);
    }
    for (int i = 0; i < 4; ++i) words.push_back(bits_of(sum()));
  }
  return words;
}

// For every word of D: |d| + sum |a b|, which rounding errors are a fraction of.
std::vector<double> mma_scale(Kind kind, const Words& in) {
  const int depth = kind == kTf32 ? 8 : 16;
  double a[16][16], b[16][8];
  const auto value = [&](uint32_t bits) {
    if (kind == kTf32) return double(float_of(bits & 0xffffe000));
    return decode(kind == kBfloat16 ? Element::BFloat16 : Element::Float16, bits & 0xffff);
  };
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    const uint32_t* own = &in[size_t(lane) * 10];
    for (int i = 0; i < 4; ++i) {
      if (kind == kTf32) a[g + i % 2 * 8][t + i / 2 * 4] = value(own[i]);
      else
        for (int half = 0; half < 2; ++half) a[g + i % 2 * 8][t * 2 + i / 2 * 8 + half] = value(own[i] >> half * 16);
    }
    for (int i = 0; i < 2; ++i) {
      if (kind == kTf32) b[t + i * 4][g] = value(own[4 + i]);
      else
        for (int half = 0; half < 2; ++half) b[t * 2 + i * 8 + half][g] = value(own[4 + i] >> half * 16);
    }
  }
  std::vector<double> scale;
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      double sum = std::fabs(double(float_of(in[size_t(lane) * 10 + 6 + size_t(i)])));
      for (int k = 0; k < depth; ++k) sum += std::fabs(a[lane / 4 + i / 2 * 8][k] * b[k][lane % 4 * 2 + i % 2]);
      scale.push_back(sum);
    }
  }
  return scale;
}

// ---- cases

struct Case {
  std::string name;
  Words words;
  std::vector<double> tolerance;  // of each word as a float; empty: bit for bit
};

template <class Launch> Words run(const Words& in, size_t count, Launch launch_case) {
  DeviceArray<uint32_t> input(in), output(count);
  expect_success(launch_case(input.get(), output.get()));
  return output.download();
}

Case mma_case(const char* name, Kind kind, const Words& in) {
  Case result{
      name, run(in, 128, [&](auto* from, auto* to) { return launch(run_mma, 1, 32, 0, nullptr, kind, from, to); }), {}};
  // A GPU cuts off the terms of a sum at the largest one's last places; 2^-20 is eight of float32's.
  for (double scale : mma_scale(kind, in)) result.tolerance.push_back(scale * 0x1p-20 + 0x1p-146);
  return result;
}

void add_mma_cases(std::vector<Case>& cases, Generator& random) {
  const struct {
    Kind kind;
    const char *moderate, *wide, *special;
    float subnormal, large;
  } kinds[] = {{kBfloat16, "mma_bf16", "mma_bf16_wide", "mma_bf16_special", 0x1p-130f, 0x1p60f},
               {kFloat16, "mma_f16", "mma_f16_wide", "mma_f16_special", 0x1p-20f, 60000.0f},
               {kTf32, "mma_tf32", "mma_tf32_wide", "mma_tf32_special", 0x1p-130f, 0x1p60f}};
  for (const auto& each : kinds) {
    const auto number = [&] { return random.number(); };
    const auto wide = [&] { return std::ldexp(random.number(), int(random() % 17) - 8); };
    // Most numbers are plain ones: else every sum would be NaN.
    const auto special = [&] {
      switch (random() % 96) {
        case 0: return INFINITY;
        case 1: return -INFINITY;
        case 2: return float(NAN);
        case 3: return each.large;
        case 4:
        case 5:
        case 6: return each.subnormal;
        case 7:
        case 8: return -0.0f;
        default: return random.number();
      }
    };
    cases.push_back(mma_case(each.moderate, each.kind, mma_input(each.kind, number, number)));
    cases.push_back(mma_case(each.wide, each.kind, mma_input(each.kind, wide, wide)));
    cases.push_back(mma_case(each.special, each.kind, mma_input(each.kind, special, special)));
  }
  // Products and sums that are subnormal themselves.
  const auto small = [&] { return random.number() * 0x1p-66f; };
  const auto smaller = [&] { return random.number() * 0x1p-131f; };
  cases.push_back(mma_case("mma_bf16_small", kBfloat16, mma_input(kBfloat16, small, smaller)));
}

std::vector<Case> run_cases() {
  Generator random;
  std::vector<Case> cases;
  const auto words = [&](size_t count) {
    Words result(count);
    for (uint32_t& word : result) word = random() << 1 ^ random();
    return result;
  };
  const auto moved = [&](const char* name, const Words& in, size_t count, auto kernel, size_t shared) {
    cases.push_back(
        {name,
         run(in, count, [&](auto* from, auto* to) { return launch(kernel, 1, 32, shared, nullptr, from, to); }),
         {}});
  };
  moved("ldmatrix_x4", words(128), 256, run_ldmatrix, 512);
  moved("cp_async16", words(256), 256, run_cp_async, 1024);
  moved("shuffles", words(32), 6 * 6 * 4 * 32, run_shuffles, 0);

  Words floats = words(192);  // of any size; and those around which roundings differ
  for (int exponent = -28; exponent < 4; ++exponent) {
    floats.push_back(bits_of(std::ldexp(1 + float(random() % 4096) / 4096, exponent)));
  }
  for (float value : {0.0f, 1.00390625f, 1.01171875f, 65504.0f, 65519.99f, 65520.0f, 65536.0f, 3.3895e38f, 3.4e38f,
                      1e-45f, 5.9e-8f, 2.9802322e-8f, 2.9802326e-8f, 6.1e-5f, INFINITY, float(NAN)}) {
    floats.push_back(bits_of(value));
    floats.push_back(bits_of(-value));
  }
  moved("conversions", floats, 512, run_conversions, 0);

  Words powers;
  for (int i = 0; i < 496; ++i) {
    powers.push_back(bits_of(float(int(random() % 300001) - 150000) / 1000 / float(1 << random() % 12)));
  }
  for (float value : {0.0f, -0.0f, 1e-40f, -1e-40f, -125.9f, -126.0f, -126.1f, -149.0f, -150.0f, 127.0f, 127.9999f,
                      128.0f, INFINITY, -INFINITY, float(NAN), 1e30f}) {
    powers.push_back(bits_of(value));
  }
  moved("exp2_approx", powers, 512, run_exp2, 0);
  for (uint32_t word : powers) {
    const double exact = std::exp2(double(float_of(word)));
    // A result beside the least normal number may be flushed or not.
    cases.back().tolerance.push_back(!std::isfinite(exact) ? 0 : exact < 0x1p-125 ? 0x1p-126 : exact * 0x1p-21);
  }
  add_mma_cases(cases, random);
  return cases;
}

// ---- the file

[[maybe_unused]] std::string first_line(const char* command) {
  std::string line;
  if (FILE* output = popen(command, "r")) {
    char text[256];
    if (std::fgets(text, sizeof text, output)) line.assign(text, std::strcspn(text, "\n\""));
    pclose(output);
  }
  return line.empty() ? "unknown" : line;
}

int write_file(const char* path) {
#ifdef INFINI_EMULATION
  (void)path;
  std::cerr << "golden: results are written on a real GPU only, and this program runs on the emulation.\n";
  return 2;
#else
  const std::vector<Case> cases = run_cases();
  cudaDeviceProp properties{};
  expect_success(cudaGetDeviceProperties(&properties, 0));
  char date[32];
  const std::time_t now = std::time(nullptr);
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  std::ofstream file(path);
  file << "{\n  \"gpu\": \"" << properties.name << "\",\n  \"computeCapability\": \"" << properties.major << '.'
       << properties.minor << "\",\n  \"driver\": \""
       << first_line("sed -n 's/.*Kernel Module[^0-9]*\\([0-9.]*\\).*/\\1/p' /proc/driver/nvidia/version 2>/dev/null")
       << "\",\n  \"nvcc\": \"" << __CUDACC_VER_MAJOR__ << '.' << __CUDACC_VER_MINOR__ << '.' << __CUDACC_VER_BUILD__
       << "\",\n  \"date\": \"" << date << "\",\n  \"commit\": \""
       << first_line("echo ${INFINI_COMMIT:-$(git rev-parse HEAD)}") << "\",\n  \"cases\": {";
  for (const Case& each : cases) {
    file << (&each == &cases.front() ? "\n" : ",\n") << "    \"" << each.name << "\": \"";
    for (size_t i = 0; i < each.words.size(); ++i) {
      char word[16];
      std::snprintf(word, sizeof word, i ? " %x" : "%x", each.words[i]);
      file << word;
    }
    file << '"';
  }
  file << "\n  }\n}\n";
  file.close();
  if (!file) {
    std::cerr << "golden: cannot write " << path << "\n";
    return 1;
  }
  std::cout << "wrote " << cases.size() << " cases to " << path << "\n";
  return 0;
#endif
}

// The string that follows "name": in the text.
std::string find_string(const std::string& text, const std::string& name) {
  const std::string key = '"' + name + "\": \"";
  const size_t at = text.find(key);
  if (at == std::string::npos) return "";
  const size_t begin = at + key.size();
  return text.substr(begin, text.find('"', begin) - begin);
}

Words parse_words(const std::string& text) {
  Words words;
  const char* at = text.c_str();
  for (char* end; *at; at = end) {
    words.push_back(uint32_t(std::strtoul(at, &end, 16)));
    if (end == at) return {};
  }
  return words;
}

// "" or what is wrong.
std::string compare(const Case& actual, const Words& expected) {
  if (expected.size() != actual.words.size()) return "has " + std::to_string(expected.size()) + " words in the file";
  for (size_t i = 0; i < expected.size(); ++i) {
    const uint32_t word = actual.words[i];
    if (word == expected[i]) continue;
    const double is = float_of(word), was = float_of(expected[i]);
    const bool close = !actual.tolerance.empty() &&
                       ((std::isnan(is) && std::isnan(was)) || std::fabs(is - was) <= actual.tolerance[i]);
    if (close) continue;
    char text[160];
    std::snprintf(text, sizeof text, "word %zu is %08x (%.9g), on the GPU it was %08x (%.9g)", i, word, is, expected[i],
                  was);
    return text;
  }
  return "";
}

int check_file(const char* path) {
  std::ifstream file(path);
  if (!file) {
    std::cerr << "golden: cannot read " << path << "\n";
    return 2;
  }
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::cout << "# written on " << find_string(text, "gpu") << " (" << find_string(text, "computeCapability")
            << "), driver " << find_string(text, "driver") << ", nvcc " << find_string(text, "nvcc") << ", "
            << find_string(text, "date") << ", commit " << find_string(text, "commit") << "\n";
  int wrong = 0;
  for (const Case& each : run_cases()) {
    const std::string problem = compare(each, parse_words(find_string(text, each.name)));
    wrong += !problem.empty();
    std::cout << (problem.empty() ? "ok " + each.name : "not ok " + each.name + ": " + problem) << "\n";
  }
  return wrong != 0;
}

}  // namespace

int main(int count, char** arguments) {
#ifdef INFINI_EMULATION
  infini::emulation::settings.throw_errors = true;
#endif
  const std::string mode = count == 3 ? arguments[1] : "";
  if (mode == "write") return write_file(arguments[2]);
  if (mode == "check") return check_file(arguments[2]);
  std::cerr << "usage: golden write FILE | golden check FILE\n";
  return 2;
}

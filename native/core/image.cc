#include "core/image.h"

#include <cmath>
#include <string>

#include "core/error.h"

namespace infini {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::Snapshot, "Expected " + what); }

template <class Number> void check_finite(const Number* numbers, int64_t count, const char* name) {
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(numbers[i])) {
      refuse(std::string("finite numbers in ") + name + " but element " + std::to_string(i) + " is not");
    }
  }
}

// 16 bits: infinities and NaN have every bit of the exponent set.
void check_finite(const uint16_t* numbers, int64_t count, uint16_t exponent, const char* name) {
  for (int64_t i = 0; i < count; ++i) {
    if ((numbers[i] & exponent) == exponent) {
      refuse(std::string("finite numbers in ") + name + " but element " + std::to_string(i) + " is not");
    }
  }
}

void check_finite(DType dtype, const void* numbers, int64_t count, const char* name) {
  if (dtype == DType::Float32) return check_finite(static_cast<const float*>(numbers), count, name);
  check_finite(static_cast<const uint16_t*>(numbers), count, dtype == DType::BFloat16 ? 0x7f80 : 0x7c00, name);
}

}  // namespace

size_t Image::bytes(const StreamConfig& config, int64_t open) {
  return size_t(config.memory_bytes() + open * config.token_bytes());
}

Image::Image(const StreamConfig& config, int64_t open, void* data)
    : normalizer(static_cast<double*>(data)),
      matrix(reinterpret_cast<float*>(normalizer + config.normalizer_elements())),
      keys(matrix + config.matrix_elements()),
      values(static_cast<char*>(keys) + open * config.key_width() * int64_t(config.element_bytes())) {}

void check_image(const StreamConfig& config, int64_t tokens, const void* data, size_t bytes) {
  constexpr int64_t kMostTokens = int64_t(1) << 53;
  if (tokens < 0 || tokens > kMostTokens) refuse("from 0 to 2^53 tokens but received " + std::to_string(tokens));
  const int64_t open = tokens % config.segment_length;
  if (bytes != Image::bytes(config, open)) {
    refuse(std::to_string(Image::bytes(config, open)) + " bytes of state but received " + std::to_string(bytes));
  }
  if (reinterpret_cast<uintptr_t>(data) % alignof(double) != 0) refuse("a state at a multiple of 8 bytes");
  const Image image(config, open, const_cast<void*>(data));
  check_finite(image.normalizer, config.normalizer_elements(), "normalizer");
  check_finite(image.matrix, config.matrix_elements(), "matrix");
  check_finite(config.dtype, image.keys, open * config.key_width(), "keys");
  check_finite(config.dtype, image.values, open * config.value_width(), "values");
  const bool absorbed = tokens >= config.segment_length;
  for (int64_t i = 0; i < config.normalizer_elements(); ++i) {
    if (image.normalizer[i] < 0) refuse("no number below 0 in normalizer but element " + std::to_string(i) + " is");
    if (!absorbed && image.normalizer[i] != 0) refuse("an empty normalizer before the first segment's end");
  }
  for (int64_t i = 0; !absorbed && i < config.matrix_elements(); ++i) {
    if (image.matrix[i] != 0) refuse("an empty matrix before the first segment's end");
  }
}

}  // namespace infini

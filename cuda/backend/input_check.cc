#include "backend/input_check.h"

#include <algorithm>
#include <cstring>

namespace infini::cuda {
namespace {

constexpr int64_t kBytesPerStage = 32 << 20;

// The index of the first element whose exponent is all ones; -1: none.
template <class Bits> int64_t find_non_finite(const void* data, int64_t elements, Bits exponent) {
  constexpr int64_t kBlock = 1024;
  const char* at = static_cast<const char*>(data);
  for (int64_t begin = 0; begin < elements; begin += kBlock) {
    const int64_t count = std::min(kBlock, elements - begin);
    Bits values[kBlock];
    std::memcpy(values, at + begin * int64_t(sizeof(Bits)), size_t(count) * sizeof(Bits));
    unsigned found = 0;
    for (int64_t i = 0; i < count; ++i) found |= (values[i] & exponent) == exponent;
    if (!found) continue;
    for (int64_t i = 0; i < count; ++i) {
      if ((values[i] & exponent) == exponent) return begin + i;
    }
  }
  return -1;
}

int64_t find_non_finite(DType dtype, const void* data, int64_t elements) {
  switch (dtype) {
    case DType::Float32: return find_non_finite<uint32_t>(data, elements, 0x7f800000u);
    case DType::BFloat16: return find_non_finite<uint16_t>(data, elements, 0x7f80);
    default: return find_non_finite<uint16_t>(data, elements, 0x7c00);
  }
}

}  // namespace

InputCheck::InputCheck(const Configuration& configuration, const Tensors& tensors)
    : tokens_(tensors.tokens),
      inputs_{{{tensors.query, configuration.config.query_width(), tensors.query_place},
               {tensors.key, configuration.config.key_width(), tensors.key_place},
               {tensors.value, configuration.config.value_width(), tensors.value_place}}},
      dtype_(configuration.config.dtype) {
  const StreamConfig& config = configuration.config;
  const int64_t width = config.query_width() + config.key_width() + config.value_width();
  // A multiple of eight, so that every stage begins at 16 bytes, as kernels want it.
  tokens_per_stage_ = std::max<int64_t>(8, kBytesPerStage / (width * int64_t(config.element_bytes())) / 8 * 8);
  for (const Input& input : inputs_) needs_device_ |= input.data && input.place == infini::Place::Device;
}

void InputCheck::plan(Request& request) {
  count_ = std::min(tokens_per_stage_, tokens_ - token_);
  request.kind = Request::Kind::Check;
  request.job.tokens = int(count_);
  request.job.first_token = token_;
  const void** const addresses[] = {&request.job.query, &request.job.key, &request.job.value};
  for (int i = 0; i < 3; ++i) {
    const auto& [data, width, place] = inputs_[i];
    if (place == infini::Place::Device) *addresses[i] = at(data, token_ * width);
  }
}

Failure InputCheck::run(const Request& request) {
  Failure first = kNoFailure;
  for (int i = 0; i < 3; ++i) {
    const auto& [data, width, place] = inputs_[i];
    if (!data || place == infini::Place::Device) continue;
    const int64_t found = find_non_finite(dtype_, at(data, token_ * width), count_ * width);
    if (found >= 0) first = std::min(first, Failure(token_ + found / width) * 8 + Failure(i));
  }
  if (request.round) {
    request.round->wait();
    first = std::min(first, request.round->failure(request.place));
  }
  token_ += count_;
  return first;
}

const void* InputCheck::at(const void* data, int64_t element) const {
  return static_cast<const char*>(data) + element * (dtype_ == DType::Float32 ? 4 : 2);
}

}  // namespace infini::cuda

#include "core/weight_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "core/error.h"

namespace infini {
namespace {

// The first element whose exponent is all ones, or -1.
template <class Bits> int64_t find_non_finite(const Bits* elements, int64_t count, Bits exponent) {
  for (int64_t i = 0; i < count; ++i) {
    if ((elements[i] & exponent) == exponent) return i;
  }
  return -1;
}

std::string place_of(Weight weight, int layer) {
  return std::string("the ") + name_of(weight) + " weights of layer " + std::to_string(layer);
}

}  // namespace

const char* name_of(Weight weight) {
  switch (weight) {
    case Weight::Embedding: return "embedding";
    case Weight::AttentionNorm: return "attentionNorm";
    case Weight::Query: return "query";
    case Weight::Key: return "key";
    case Weight::Value: return "value";
    case Weight::Output: return "output";
    case Weight::MlpNorm: return "mlpNorm";
    case Weight::MlpGate: return "mlpGate";
    case Weight::MlpUp: return "mlpUp";
    case Weight::MlpDown: return "mlpDown";
    case Weight::FinalNorm: return "finalNorm";
    default: return "head";
  }
}

FileWeights::FileWeights(const ModelConfig& config, std::map<std::pair<Weight, int>, StoredWeight> weights)
    : weights_(std::move(weights)) {
  auto expect = [&](Weight weight, int layer, int64_t rows, int64_t columns) {
    const auto found = weights_.find({weight, layer});
    if (found != weights_.end() && found->second.rows == rows && found->second.columns == columns) return;
    throw Error(ErrorCode::Model, "Expected " + std::to_string(rows) + " x " + std::to_string(columns) + " for " +
                                      place_of(weight, layer));
  };
  const int64_t width = config.width, mlp = config.mlp_width;
  expect(Weight::Embedding, 0, config.vocabulary, width);
  for (int layer = 0; layer < config.layers; ++layer) {
    expect(Weight::AttentionNorm, layer, 1, width);
    expect(Weight::Query, layer, config.query_width(), width);
    expect(Weight::Key, layer, config.key_width(), width);
    expect(Weight::Value, layer, config.key_width(), width);
    expect(Weight::Output, layer, width, config.query_width());
    expect(Weight::MlpNorm, layer, 1, width);
    if (config.gated) expect(Weight::MlpGate, layer, mlp, width);
    expect(Weight::MlpUp, layer, mlp, width);
    expect(Weight::MlpDown, layer, width, mlp);
  }
  expect(Weight::FinalNorm, 0, 1, width);
  if (!config.tied) expect(Weight::Head, 0, config.vocabulary, width);
}

void FileWeights::read(Weight weight, int layer, int64_t begin, int64_t end, void* to) {
  const StoredWeight& stored = weights_.at({weight, layer});
  const int64_t row_bytes = stored.columns * int64_t(element_bytes(stored.dtype));
  const int64_t bytes = (end - begin) * row_bytes;
  for (int64_t done = 0; done < bytes;) {
    const ssize_t got = pread(stored.file, static_cast<char*>(to) + done, size_t(bytes - done),
                              off_t(stored.begin + begin * row_bytes + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      throw Error(ErrorCode::Model, stored.file_name + ": expected to read " + place_of(weight, layer) + " but " +
                                        (got == 0 ? "the file has become shorter" : std::strerror(errno)));
    }
    done += got;
  }
  const int64_t elements = (end - begin) * stored.columns;
  const int64_t found = stored.dtype == DType::Float32
                            ? find_non_finite(static_cast<const uint32_t*>(to), elements, 0x7f800000u)
                            : find_non_finite(static_cast<const uint16_t*>(to), elements,
                                              uint16_t(stored.dtype == DType::BFloat16 ? 0x7f80 : 0x7c00));
  if (found >= 0) {
    throw Error(ErrorCode::Model, stored.file_name + ": expected finite numbers but " + place_of(weight, layer) +
                                      " hold NaN or Infinity in row " + std::to_string(begin + found / stored.columns) + ", column " +
                                      std::to_string(found % stored.columns));
  }
}

}  // namespace infini

#include "core/config.h"

#include <cmath>
#include <cstdio>

#include "core/error.h"

namespace infini {
namespace {

std::string show(double value) {  // as JavaScript does
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", value);
  double shorter = 0;
  char brief[32];
  std::snprintf(brief, sizeof brief, "%g", value);
  if (std::sscanf(brief, "%lf", &shorter) == 1 && shorter == value) return brief;
  return text;
}

[[noreturn]] void out_of_range(const std::string& name, const std::string& expected, const std::string& received) {
  throw Error(ErrorCode::OutOfRange, "Expected " + expected + " for \"config." + name + "\" but received " + received);
}

int whole(const char* name, double value, int max) {
  if (!(value >= 1 && value <= max && value == std::floor(value))) {
    out_of_range(name, "an integer from 1 to " + std::to_string(max), show(value));
  }
  return int(value);
}

double positive(const char* name, double value) {
  if (!(std::isfinite(value) && value > 0)) out_of_range(name, "a finite number above 0", show(value));
  return value;
}

template <class Enum, size_t Count>
Enum choice(const char* name, const std::optional<std::string>& text, const Enum (&set)[Count], Enum fallback) {
  if (!text) return fallback;
  std::string names;
  for (Enum item : set) {
    if (*text == name_of(item)) return item;
    names += std::string(names.empty() ? "'" : " or '") + name_of(item) + "'";
  }
  out_of_range(name, names, quoted(*text));
}

}  // namespace

const char* name_of(DType dtype) {
  return dtype == DType::Float32 ? "float32" : dtype == DType::BFloat16 ? "bfloat16" : "float16";
}
const char* name_of(Rule rule) { return rule == Rule::Linear ? "linear" : "delta"; }
const char* name_of(EmptyRead empty_read) { return empty_read == EmptyRead::Gated ? "gated" : "local"; }

StreamConfig StreamConfig::resolve(const RawConfig& raw) {
  StreamConfig config;
  config.heads = whole("heads", raw.heads, 1024);
  config.kv_heads = raw.kv_heads ? whole("kvHeads", *raw.kv_heads, 1024) : config.heads;
  if (config.heads % config.kv_heads != 0) {
    out_of_range("kvHeads", "a divisor of heads (" + std::to_string(config.heads) + ")", std::to_string(config.kv_heads));
  }
  config.head_dim = whole("headDim", raw.head_dim, 256);
  config.value_dim = raw.value_dim ? whole("valueDim", *raw.value_dim, 256) : config.head_dim;
  config.segment_length = raw.segment_length ? whole("segmentLength", *raw.segment_length, 65536) : 2048;
  config.rule = choice("rule", raw.rule, {Rule::Linear, Rule::Delta}, Rule::Delta);
  config.empty_read = choice("emptyRead", raw.empty_read, {EmptyRead::Gated, EmptyRead::Local}, EmptyRead::Gated);
  config.dtype = choice("dtype", raw.dtype, {DType::Float32, DType::BFloat16, DType::Float16}, DType::Float32);
  config.scale = raw.scale ? positive("scale", *raw.scale) : 1.0 / std::sqrt(double(config.head_dim));

  if (raw.gate_is_list && raw.gate.size() != size_t(config.heads)) {
    throw Error(ErrorCode::Shape, "Expected one number per query head (" + std::to_string(config.heads) +
                                      ") for \"config.gate\" but received " + std::to_string(raw.gate.size()));
  }
  for (double beta : raw.gate) {
    if (!std::isfinite(beta)) out_of_range("gate", "finite numbers", show(beta));
  }
  config.gate = raw.gate_is_list ? raw.gate : std::vector<double>(config.heads, raw.gate.empty() ? 0.0 : raw.gate[0]);

  if (raw.rope_theta) {
    config.rope_theta = positive("rope.theta", *raw.rope_theta);
    if (config.head_dim % 2 != 0) {
      out_of_range("headDim", "an even number with config.rope", std::to_string(config.head_dim));
    }
  }
  return config;
}

}  // namespace infini

// What a stream is asked to be: the resolved configuration, its checks and its arithmetic.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace infini {

enum class DType : uint8_t { Float32, BFloat16, Float16 };
inline size_t element_bytes(DType dtype) { return dtype == DType::Float32 ? 4 : 2; }

enum class Rule : uint8_t { Linear, Delta };
enum class EmptyRead : uint8_t { Gated, Local };

// As it came from JavaScript: types are checked there, ranges here.
struct RawConfig {
  double heads = 0, head_dim = 0;
  std::optional<double> kv_heads, value_dim, segment_length, scale, rope_theta;
  std::optional<std::string> rule, empty_read, dtype;
  std::vector<double> gate;  // empty: default; one: for every head; else one per query head
  bool gate_is_list = false;
};

struct StreamConfig {
  int heads, kv_heads, head_dim, value_dim, segment_length;
  Rule rule;
  std::vector<double> gate;  // beta, one per query head
  double scale;
  std::optional<double> rope_theta;
  EmptyRead empty_read;
  DType dtype;

  static StreamConfig resolve(const RawConfig& raw);  // throws Error
  bool operator==(const StreamConfig&) const = default;

  int group() const { return heads / kv_heads; }  // query heads that share one key-value head
  size_t element_bytes() const { return infini::element_bytes(dtype); }

  // Elements per token of each tensor.
  int64_t query_width() const { return int64_t(heads) * head_dim; }
  int64_t key_width() const { return int64_t(kv_heads) * head_dim; }
  int64_t value_width() const { return int64_t(kv_heads) * value_dim; }
  int64_t output_width() const { return int64_t(heads) * value_dim; }

  // Persistent bytes of a stream: M float32, z float64, keys and values of one segment.
  int64_t matrix_elements() const { return int64_t(kv_heads) * head_dim * value_dim; }
  int64_t normalizer_elements() const { return int64_t(kv_heads) * head_dim; }
  int64_t memory_bytes() const { return matrix_elements() * 4 + normalizer_elements() * 8; }
  int64_t token_bytes() const { return (key_width() + value_width()) * int64_t(element_bytes()); }
  int64_t state_bytes() const { return memory_bytes() + segment_length * token_bytes(); }
};

const char* name_of(DType dtype);
const char* name_of(Rule rule);
const char* name_of(EmptyRead empty_read);

}  // namespace infini

#include "addon/convert.h"

#include <cstring>

namespace infini {
namespace {

struct CodeEntry {
  const char* code;
  const char* type;
};

constexpr CodeEntry kCodes[] = {
#define X(name, code, type) {code, type},
    INFINI_ERROR_CODES(X)
#undef X
};

std::optional<double> number(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsNumber()) return std::nullopt;
  return value.As<Napi::Number>().DoubleValue();
}

std::optional<std::string> text(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsString()) return std::nullopt;
  return value.As<Napi::String>().Utf8Value();
}

}  // namespace

Napi::Error to_javascript(Napi::Env env, const Error& error) {
  const CodeEntry& entry = kCodes[int(error.code)];
  const Napi::String message = Napi::String::New(env, error.what());
  const Napi::String code = Napi::String::New(env, entry.code);
  napi_value value = nullptr;
  if (std::strcmp(entry.type, "TypeError") == 0) {
    napi_create_type_error(env, code, message, &value);
  } else if (std::strcmp(entry.type, "RangeError") == 0) {
    napi_create_range_error(env, code, message, &value);
  } else {
    napi_create_error(env, code, message, &value);
  }
  Napi::Object object(env, value);
  if (error.code == ErrorCode::NonFinite) {
    object.Set("tensor", site_name(error.site));
    object.Set("token", double(error.token));
  }
  if (error.stream >= 0) object.Set("stream", double(error.stream));
  return Napi::Error(env, value);
}

Napi::Object error_table(Napi::Env env) {
  Napi::Object table = Napi::Object::New(env);
  for (const CodeEntry& entry : kCodes) table.Set(entry.code, entry.type);
  return table;
}

RawConfig read_config(const Napi::Object& object) {
  RawConfig raw;
  raw.heads = number(object, "heads").value_or(0);
  raw.head_dim = number(object, "headDim").value_or(0);
  raw.kv_heads = number(object, "kvHeads");
  raw.value_dim = number(object, "valueDim");
  raw.segment_length = number(object, "segmentLength");
  raw.scale = number(object, "scale");
  raw.rope_theta = number(object, "ropeTheta");
  raw.rule = text(object, "rule");
  raw.empty_read = text(object, "emptyRead");
  raw.dtype = text(object, "dtype");
  if (const auto beta = number(object, "gate")) {
    raw.gate = {*beta};
  } else if (const Napi::Value gate = object.Get("gate"); gate.IsArray()) {
    const Napi::Array list = gate.As<Napi::Array>();
    raw.gate_is_list = true;
    for (uint32_t i = 0; i < list.Length(); ++i) raw.gate.push_back(list.Get(i).ToNumber().DoubleValue());
  }
  return raw;
}

Napi::Object to_javascript(Napi::Env env, const StreamConfig& config) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("heads", config.heads);
  object.Set("kvHeads", config.kv_heads);
  object.Set("headDim", config.head_dim);
  object.Set("valueDim", config.value_dim);
  object.Set("segmentLength", config.segment_length);
  object.Set("rule", name_of(config.rule));
  Napi::Array gate = Napi::Array::New(env, config.gate.size());
  for (uint32_t i = 0; i < config.gate.size(); ++i) gate.Set(i, config.gate[i]);
  object.Set("gate", gate);
  object.Set("scale", config.scale);
  Napi::Value rope = env.Null();
  if (config.rope_theta) {
    Napi::Object rotary = Napi::Object::New(env);
    rotary.Set("theta", *config.rope_theta);
    rope = rotary;
  }
  object.Set("rope", rope);
  object.Set("emptyRead", name_of(config.empty_read));
  object.Set("dtype", name_of(config.dtype));
  return object;
}

Napi::Object to_javascript(Napi::Env env, const DeviceInfo& info) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("id", info.id);
  object.Set("backend", info.backend);
  object.Set("name", info.name);
  if (info.backend == "cpu") {
    object.Set("threads", info.threads);
    object.Set("simd", info.simd);
  } else {
    object.Set("computeCapability", info.compute_capability);
    object.Set("totalBytes", double(info.total_bytes));
    object.Set("freeBytes", double(info.free_bytes));
    object.Set("driver", info.driver);
  }
  return object;
}

Napi::Object to_javascript(Napi::Env env, const Ledger& ledger) {
  Napi::Object object = Napi::Object::New(env);
  auto set = [&](const char* key, const std::atomic<int64_t>& counter) { object.Set(key, double(counter.load())); };
  set("streams", ledger.streams);
  set("streamBytes", ledger.stream_bytes);
  set("scratchBytes", ledger.scratch_bytes);
  set("stagingBytes", ledger.staging_bytes);
  set("tableBytes", ledger.table_bytes);
  set("tensorBytes", ledger.tensor_bytes);
  set("weightBytes", ledger.weight_bytes);
  set("idleBytes", ledger.idle_bytes);
  set("pendingCalls", ledger.pending_calls);
  set("tokens", ledger.tokens);
  set("segments", ledger.segments);
  set("units", ledger.units);
  set("allocatedBytes", ledger.allocated_bytes);
  object.Set("kernelMilliseconds", double(ledger.kernel_nanoseconds.load()) / 1e6);
  return object;
}

void* array_data(const Napi::Value& value, napi_typedarray_type type, int64_t elements) {
  const ArrayView array = view_of(value);
  if (array.type != type || array.elements != elements) {
    throw Error(ErrorCode::Shape, "Expected a tensor of " + std::to_string(elements) + " elements but its memory changed");
  }
  return array.data;
}

size_t ArrayView::bytes() const {
  switch (type) {
    case napi_int16_array:
    case napi_uint16_array: return size_t(elements) * 2;
    case napi_int32_array:
    case napi_uint32_array:
    case napi_float32_array: return size_t(elements) * 4;
    case napi_float64_array:
    case napi_bigint64_array:
    case napi_biguint64_array: return size_t(elements) * 8;
    default: return size_t(elements);
  }
}

ArrayView view_of(const Napi::Value& value) {
  ArrayView array;
  size_t length = 0;
  if (!value.IsTypedArray() || napi_get_typedarray_info(value.Env(), value, &array.type, &length, &array.data, nullptr,
                                                        nullptr) != napi_ok) {
    throw Error(ErrorCode::InvalidArgType, "Expected a typed array");
  }
  array.elements = array.data ? int64_t(length) : 0;
  return array;
}

}  // namespace infini

// Between JavaScript values and the core's types.
#pragma once

#include <napi.h>

#include "core/backend.h"
#include "core/error.h"

namespace infini {

Napi::Error to_javascript(Napi::Env env, const Error& error);
Napi::Object error_table(Napi::Env env);

RawConfig read_config(const Napi::Object& object);
Napi::Object to_javascript(Napi::Env env, const StreamConfig& config);
Napi::Object to_javascript(Napi::Env env, const DeviceInfo& info);
Napi::Object to_javascript(Napi::Env env, const Ledger& ledger);

inline napi_typedarray_type array_type(DType dtype) {
  return dtype == DType::Float32 ? napi_float32_array : napi_uint16_array;
}

struct ArrayView {
  napi_typedarray_type type;
  void* data = nullptr;
  int64_t elements = 0;
  size_t bytes() const;
};
ArrayView view_of(const Napi::Value& value);

// The data of a typed array of the given element type and length. The TypeScript side has checked this and said
// what was wrong in the user's words; here it protects memory.
void* array_data(const Napi::Value& value, napi_typedarray_type type, int64_t elements);

// Made in good time: to make an Error needs memory.
inline const Error kNoRoom(ErrorCode::OutOfMemory, "Expected room for the call but the allocation failed");

// Runs a binding; an engine error becomes a JavaScript one.
template <class Body> Napi::Value guarded(const Napi::CallbackInfo& info, Body body) {
  try {
    return body();
  } catch (const Error& error) {
    throw to_javascript(info.Env(), error);
  } catch (const std::bad_alloc&) {
    throw to_javascript(info.Env(), kNoRoom);
  }
}

}  // namespace infini

// The tensors of a call, as JavaScript gives them.
//
// Each is a typed array, which is copied (a *Sync call reads it where it lies), or lies in a device tensor or a host
// buffer, which is used in place and kept alive by the call.
#pragma once

#include "addon/convert.h"
#include "addon/handles.h"

namespace infini {

struct Operand {
  void* data = nullptr;
  int64_t elements = 0;
  Place place = Place::Host;
  std::shared_ptr<TensorMemory> memory;  // null: JavaScript's own
};

struct Arguments {
  CallKind kind;
  int64_t tokens = 0;
  Operand query, key, value, output;  // no output: it is staged, and taken when the call has settled
};

// Checked: every pointer holds as many elements as the call's tokens need.
Arguments read_arguments(CallKind kind, const StreamConfig& config, const Engine& engine, const Napi::Value& query,
                         const Napi::Value& key, const Napi::Value& value, const Napi::Value& output);

// Copies what must be copied, on the calling thread.
std::shared_ptr<Call> make_call(const Arguments& arguments, const StreamConfig& config, DeviceHandle& device);

// For a *Sync call: everything where it lies.
Tensors in_place(const Arguments& arguments);

}  // namespace infini

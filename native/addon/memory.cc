// Device tensors and host buffers: one function per method of lib/device-tensor.ts and lib/host-buffer.ts.
#include "addon/bindings.h"
#include "addon/convert.h"
#include "addon/handles.h"
#include "core/copy.h"
#include "core/memory_budget.h"

namespace infini {
namespace {

const DeviceReference& open_device(const Napi::CallbackInfo& info) {
  const DeviceReference& device = unwrap<DeviceReference>(info[0]);
  if (device->closed) throw Error(ErrorCode::Closed, "Expected an open device but it is closed");
  return device;
}

size_t bytes_of(const Napi::CallbackInfo& info) { return size_t(info[1].ToNumber().Int64Value()); }

TensorMemory& open_memory(MemoryHandle& handle) {
  if (!handle.memory) throw Error(ErrorCode::Closed, "Expected an open tensor but it is closed");
  return *handle.memory;
}

// createTensor(device, bytes) -> memory
Napi::Value create_tensor(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const DeviceReference& device = open_device(info);
    return wrap<MemoryHandle>(info.Env(), info.Env(), device, device->engine.backend().allocate_device(bytes_of(info)));
  });
}

// createHostBuffer(device, bytes) -> [ArrayBuffer, memory]. The buffer's owner is the engine it came from, not V8,
// so its memory lives until the buffer is collected and every call has let go.
Napi::Value create_host_buffer(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const DeviceReference& device = open_device(info);
    const size_t bytes = bytes_of(info);
    require_memory(bytes, "a host buffer", device->engine.ledger());
    const auto memory = device->engine.backend().allocate_host(bytes, &Ledger::tensor_bytes);
    std::memset(memory->data(), 0, bytes);

    auto* const owner = new std::shared_ptr<TensorMemory>(memory);
    const auto let_go = [](napi_env, void*, void* owner) { delete static_cast<std::shared_ptr<TensorMemory>*>(owner); };
    napi_value buffer;
    const napi_status status = napi_create_external_arraybuffer(info.Env(), memory->data(), bytes, let_go, owner, &buffer);
    if (status != napi_ok) delete owner;
    if (status == napi_no_external_buffers_allowed) {
      throw Error(ErrorCode::Device, "Expected a JavaScript engine that allows external buffers but this one does not");
    }
    if (status != napi_ok) throw Napi::Error::New(info.Env());
    Napi::Array result = Napi::Array::New(info.Env(), 2);
    result.Set(0u, buffer);
    result.Set(1u, wrap<MemoryHandle>(info.Env(), info.Env(), device, memory));
    return result;
  });
}

// stage(device, array) -> memory: a copy where calls use it in place.
Napi::Value stage(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const DeviceReference& device = open_device(info);
    const ArrayView array = view_of(info[1]);
    require_memory(array.bytes(), "the tensors of one call", device->engine.ledger());
    auto memory = device->engine.backend().allocate_host(array.bytes(), &Ledger::staging_bytes);
    copy(memory->data(), array.data, array.bytes(), device->limit->most);
    return wrap<MemoryHandle>(info.Env(), info.Env(), device, std::move(memory));
  });
}

// writeTensor(memory, array)
Napi::Value write(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    MemoryHandle& handle = unwrap<MemoryHandle>(info[0]);
    TensorMemory& memory = open_memory(handle);
    const ArrayView array = view_of(info[1]);
    if (array.bytes() != memory.bytes()) {
      throw Error(ErrorCode::Shape, "Expected " + std::to_string(memory.bytes()) + " bytes but the array's memory changed");
    }
    handle.device->engine.backend().write(memory, array.data, array.bytes());
    return info.Env().Undefined();
  });
}

// readTensor(memory, settle) -> ticket
Napi::Value read(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    MemoryHandle& handle = unwrap<MemoryHandle>(info[0]);
    const size_t bytes = open_memory(handle).bytes();
    DeviceHandle& device = *handle.device;
    require_memory(2 * bytes, "the numbers of a tensor", device.engine.ledger());  // staged, then in an array
    auto call = std::make_shared<Call>();
    call->kind = CallKind::Read;
    call->limit = device.limit;
    call->source = handle.memory;
    call->memory.push_back(device.engine.backend().allocate_host(bytes, &Ledger::staging_bytes));
    call->tensors.output = call->memory.back()->data();
    call->output_bytes = bytes;
    return Napi::Number::New(info.Env(), Environment::of(info.Env()).submit(info.Env(), device.engine,
                                                                            {{call, info[1].As<Napi::Function>()}}));
  });
}

Napi::Value close(const Napi::CallbackInfo& info) {
  unwrap<MemoryHandle>(info[0]).close();
  return info.Env().Undefined();
}

Napi::Value is_closed(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), !unwrap<MemoryHandle>(info[0]).memory);
}

}  // namespace

void export_memory(Napi::Env env, Napi::Object exports) {
  exports.Set("createTensor", Napi::Function::New(env, create_tensor));
  exports.Set("createHostBuffer", Napi::Function::New(env, create_host_buffer));
  exports.Set("stage", Napi::Function::New(env, stage));
  exports.Set("writeTensor", Napi::Function::New(env, write));
  exports.Set("readTensor", Napi::Function::New(env, read));
  exports.Set("closeTensor", Napi::Function::New(env, close));
  exports.Set("tensorClosed", Napi::Function::New(env, is_closed));
}

}  // namespace infini

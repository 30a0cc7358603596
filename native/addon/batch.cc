// Prepared batches: one function per method of lib/batch.ts.
#include "addon/arguments.h"
#include "addon/bindings.h"

namespace infini {
namespace {

// Made in good time: to close needs no memory, to make an Error does.
const Error kClosed(ErrorCode::Closed, "The batch was closed during the step");

Error closed() { return Error(ErrorCode::Closed, "Expected an open batch but it, or a stream in it, is closed"); }

BatchHandle& open_batch(const Napi::CallbackInfo& info) {
  BatchHandle& handle = unwrap<BatchHandle>(info[0]);
  if (!handle.batch) throw closed();
  return handle;
}

// createBatch(device, [stream, ...]) -> batch. The streams are distinct, and of this device.
Napi::Value create_batch(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const DeviceReference& device = unwrap<DeviceReference>(info[0]);
    if (device->closed) throw Error(ErrorCode::Closed, "Expected an open device but it is closed");
    const Napi::Array given = info[1].As<Napi::Array>();
    std::vector<StreamHandle*> members;
    for (uint32_t i = 0; i < given.Length(); ++i) {
      StreamHandle& member = unwrap<StreamHandle>(given.Get(i));
      const std::string name = "\"streams[" + std::to_string(i) + "]\"";
      if (!member.stream) throw Error(ErrorCode::Closed, "Expected an open stream for " + name + " but it is closed");
      if (!members.empty() && member.config != members.front()->config) {
        throw Error(ErrorCode::OutOfRange, "Expected the configuration of \"streams[0]\" for " + name +
                                               " but received another one");
      }
      members.push_back(&member);
    }
    return wrap<BatchHandle>(info.Env(), device, members);
  });
}

Arguments read_step(const Napi::CallbackInfo& info, const BatchHandle& handle) {
  const Batch& batch = *handle.batch;
  Arguments arguments =
      read_arguments(CallKind::Step, batch.config(), handle.device->engine, info[1], info[2], info[3], info[4]);
  if (arguments.tokens != int64_t(batch.streams.size())) {
    throw Error(ErrorCode::Shape, "Expected one token for each of " + std::to_string(batch.streams.size()) + " streams");
  }
  return arguments;
}

// step(batch, q, k, v, out | undefined, settle) -> ticket
Napi::Value step(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    BatchHandle& handle = open_batch(info);
    const auto call = make_call(read_step(info, handle), handle.batch->config(), *handle.device);
    call->batch = handle.batch;
    return Napi::Number::New(info.Env(), Environment::of(info.Env()).submit(info.Env(), handle.device->engine,
                                                                            {{call, info[5].As<Napi::Function>()}}));
  });
}

// stepSync(batch, q, k, v, out)
Napi::Value step_now(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    BatchHandle& handle = open_batch(info);
    handle.batch->run_now(in_place(read_step(info, handle)), handle.device->limit->most);
    return info.Env().Undefined();
  });
}

Napi::Value close(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    unwrap<BatchHandle>(info[0]).close(kClosed);
    return info.Env().Undefined();
  });
}

Napi::Value is_closed(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), !unwrap<BatchHandle>(info[0]).batch);
}

}  // namespace

void export_batch(Napi::Env env, Napi::Object exports) {
  exports.Set("createBatch", Napi::Function::New(env, create_batch));
  exports.Set("step", Napi::Function::New(env, step));
  exports.Set("stepSync", Napi::Function::New(env, step_now));
  exports.Set("closeBatch", Napi::Function::New(env, close));
  exports.Set("batchClosed", Napi::Function::New(env, is_closed));
}

}  // namespace infini

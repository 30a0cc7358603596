// Streams: one function per method of lib/stream.ts.
#include <cstring>

#include "addon/bindings.h"
#include "addon/convert.h"
#include "core/memory_budget.h"
#include "addon/handles.h"

namespace infini {

using StreamExternal = Napi::External<StreamHandle>;

Napi::Value wrap_stream(Napi::Env env, std::shared_ptr<DeviceHandle> device, std::shared_ptr<Stream> stream) {
  return StreamExternal::New(env, new StreamHandle(env, std::move(device), std::move(stream)),
                             [](Napi::Env, StreamHandle* handle) { delete handle; });
}

namespace {

StreamHandle& handle_of(const Napi::CallbackInfo& info) { return *info[0].As<StreamExternal>().Data(); }

Stream& open_stream(StreamHandle& handle) {
  if (!handle.stream) throw Error(ErrorCode::Closed, "Expected an open stream but it is closed");
  return *handle.stream;
}

// Where the arguments of one call lie: q (and k, v for attend) from `first` on.
struct Arguments {
  CallKind kind;
  Tensors tensors;
  size_t query_bytes, key_bytes, value_bytes, output_bytes;
};

Arguments read_arguments(const Napi::CallbackInfo& info, CallKind kind, const StreamConfig& config) {
  Arguments arguments{kind, {}, 0, 0, 0, 0};
  const napi_typedarray_type type = array_type(config.dtype);
  const size_t element = config.element_bytes();
  Tensors& tensors = arguments.tensors;
  tensors.tokens = array_length(info[1]) / config.query_width();
  if (tensors.tokens == 0) throw Error(ErrorCode::Shape, "Expected at least one token for \"q\" but received none");
  tensors.query = array_data(info[1], type, tensors.tokens * config.query_width());
  arguments.query_bytes = size_t(tensors.tokens * config.query_width()) * element;
  if (kind == CallKind::Attend) {
    tensors.key = array_data(info[2], type, tensors.tokens * config.key_width());
    tensors.value = array_data(info[3], type, tensors.tokens * config.value_width());
    arguments.key_bytes = size_t(tensors.tokens * config.key_width()) * element;
    arguments.value_bytes = size_t(tensors.tokens * config.value_width()) * element;
  }
  arguments.output_bytes = size_t(tensors.tokens * config.output_width()) * element;
  return arguments;
}

// submit(stream, q[, k, v], callback) -> ticket. The tensors are copied here, on the caller's thread.
template <CallKind kind> Napi::Value submit(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    StreamHandle& handle = handle_of(info);
    Stream& stream = open_stream(handle);
    const Arguments arguments = read_arguments(info, kind, stream.config);
    auto call = std::make_shared<Call>();
    call->kind = kind;
    call->stream = handle.stream;

    auto aligned = [](size_t bytes) { return (bytes + 63) / 64 * 64; };
    const size_t query = aligned(arguments.query_bytes), key = aligned(arguments.key_bytes),
                 value = aligned(arguments.value_bytes);
    const size_t bytes = query + key + value + arguments.output_bytes;
    Ledger& ledger = handle.device->engine.ledger();
    require_memory(bytes + arguments.output_bytes, "the tensors of one call", ledger);  // staged, then in `out`
    call->staging = Buffer(bytes, ledger, &Ledger::staging_bytes);
    char* to = call->staging.as<char>();
    std::memcpy(to, arguments.tensors.query, arguments.query_bytes);
    call->tensors = {arguments.tensors.tokens, to, nullptr, nullptr, to + query + key + value};
    if (kind == CallKind::Attend) {
      call->tensors.key = std::memcpy(to + query, arguments.tensors.key, arguments.key_bytes);
      call->tensors.value = std::memcpy(to + query + key, arguments.tensors.value, arguments.value_bytes);
    }
    const Napi::Function callback = info[info.Length() - 1].As<Napi::Function>();
    return Napi::Number::New(info.Env(),
                             handle.environment->submit(info.Env(), handle.device->engine, call, callback));
  });
}

// run(stream, q[, k, v], out) on this thread. The result is staged: `out` may overlap the inputs, and is untouched
// when the call fails.
template <CallKind kind> Napi::Value run_now(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    StreamHandle& handle = handle_of(info);
    Stream& stream = open_stream(handle);
    Arguments arguments = read_arguments(info, kind, stream.config);
    void* out = array_data(info[info.Length() - 1], array_type(stream.config.dtype),
                           arguments.tensors.tokens * stream.config.output_width());
    Ledger& ledger = handle.device->engine.ledger();
    require_memory(2 * arguments.output_bytes, "the output of one call", ledger);  // staged, then in `out`
    const Buffer staging(arguments.output_bytes, ledger, &Ledger::staging_bytes);
    arguments.tensors.output = staging.as<void>();
    stream.run_now(kind, arguments.tensors);
    std::memcpy(out, staging.as<void>(), arguments.output_bytes);
    return info.Env().Undefined();
  });
}

// take(target): copies the result of the call whose callback is running.
Napi::Value take(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Call* call = Environment::of(info.Env()).settling();
    if (!call || call->error) throw Error(ErrorCode::Device, "Expected a finished call but there is none");
    const StreamConfig& config = call->stream->config;
    const int64_t elements = call->tensors.tokens * config.output_width();
    void* to = array_data(info[0], array_type(config.dtype), elements);
    std::memcpy(to, call->tensors.output, size_t(elements) * config.element_bytes());
    return info.Env().Undefined();
  });
}

Napi::Value cancel(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    StreamHandle& handle = handle_of(info);
    handle.environment->cancel(handle.device->engine, info[1].ToNumber().Uint32Value(),
                               Error(ErrorCode::Abort, "The operation was aborted"));
    return info.Env().Undefined();
  });
}

Napi::Value config(const Napi::CallbackInfo& info) { return to_javascript(info.Env(), handle_of(info).config); }

Napi::Value byte_length(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), double(handle_of(info).byte_length));
}

// memory(stream, matrix, normaliser): fills both.
Napi::Value memory(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Stream& stream = open_stream(handle_of(info));
    auto* matrix = static_cast<float*>(array_data(info[1], napi_float32_array, stream.config.matrix_elements()));
    auto* normalizer = static_cast<double*>(array_data(info[2], napi_float64_array, stream.config.normalizer_elements()));
    stream.read_memory(matrix, normalizer);
    return info.Env().Undefined();
  });
}

Napi::Value reset(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    open_stream(handle_of(info)).reset();
    return info.Env().Undefined();
  });
}

Napi::Value fork(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    StreamHandle& handle = handle_of(info);
    return wrap_stream(info.Env(), handle.device, open_stream(handle).fork());
  });
}

Napi::Value close(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    handle_of(info).close(Error(ErrorCode::Closed, "The stream was closed during the call"));
    return info.Env().Undefined();
  });
}

Napi::Value is_closed(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), !handle_of(info).stream);
}

}  // namespace

void export_stream(Napi::Env env, Napi::Object exports) {
  exports.Set("attend", Napi::Function::New(env, submit<CallKind::Attend>));
  exports.Set("attendSync", Napi::Function::New(env, run_now<CallKind::Attend>));
  exports.Set("retrieve", Napi::Function::New(env, submit<CallKind::Retrieve>));
  exports.Set("retrieveSync", Napi::Function::New(env, run_now<CallKind::Retrieve>));
  exports.Set("take", Napi::Function::New(env, take));
  exports.Set("cancel", Napi::Function::New(env, cancel));
  exports.Set("streamConfig", Napi::Function::New(env, config));
  exports.Set("byteLength", Napi::Function::New(env, byte_length));
  exports.Set("memory", Napi::Function::New(env, memory));
  exports.Set("reset", Napi::Function::New(env, reset));
  exports.Set("fork", Napi::Function::New(env, fork));
  exports.Set("closeStream", Napi::Function::New(env, close));
  exports.Set("streamClosed", Napi::Function::New(env, is_closed));
}

}  // namespace infini

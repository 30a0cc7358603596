// Streams: one function per method of lib/stream.ts.
#include <algorithm>
#include <array>

#include "addon/arguments.h"
#include "addon/bindings.h"
#include "addon/convert.h"
#include "addon/handles.h"
#include "core/copy.h"
#include "core/image.h"
#include "core/memory_budget.h"

namespace infini {
namespace {

// Made in good time: to end a call needs no memory, to make an Error does.
const Error kAborted(ErrorCode::Abort, "The operation was aborted");
const Error kClosed(ErrorCode::Closed, "The stream was closed during the call");

StreamHandle& handle_of(const Napi::CallbackInfo& info) { return unwrap<StreamHandle>(info[0]); }

Stream& open_stream(StreamHandle& handle) {
  if (!handle.stream) throw Error(ErrorCode::Closed, "Expected an open stream but it is closed");
  return *handle.stream;
}

std::shared_ptr<Call> make_stream_call(StreamHandle& handle, CallKind kind, const Napi::Value& query,
                                       const Napi::Value& key, const Napi::Value& value, const Napi::Value& output) {
  const StreamConfig& config = open_stream(handle).config;
  DeviceHandle& device = *handle.device;
  const auto call = make_call(read_arguments(kind, config, device.engine, query, key, value, output), config, device);
  call->stream = handle.stream;
  return call;
}

Napi::Value submit(const Napi::CallbackInfo& info, StreamHandle& handle, std::shared_ptr<Call> call) {
  const Napi::Function settle = info[info.Length() - 1].As<Napi::Function>();
  return Napi::Number::New(info.Env(), handle.environment->submit(info.Env(), handle.device->engine,
                                                                  {{std::move(call), settle}}));
}

// attend(stream, q, k, v, out | undefined, settle) -> ticket
Napi::Value attend(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    StreamHandle& handle = handle_of(info);
    return submit(info, handle, make_stream_call(handle, CallKind::Attend, info[1], info[2], info[3], info[4]));
  });
}

// retrieve(stream, q, out | undefined, settle) -> ticket
Napi::Value retrieve(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    StreamHandle& handle = handle_of(info);
    const Napi::Value none;
    return submit(info, handle, make_stream_call(handle, CallKind::Retrieve, info[1], none, none, info[2]));
  });
}

// attendMany([[stream, q, k, v, out | undefined, settle], ...]) -> [ticket or error, ...]. The streams are of one
// device; those calls that can be made are queued at once.
Napi::Value attend_many(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Napi::Array entries = info[0].As<Napi::Array>();
    const uint32_t count = entries.Length();
    Napi::Array results = Napi::Array::New(info.Env(), count);
    std::vector<Environment::Submission> submissions;
    std::vector<uint32_t> indices;
    submissions.reserve(count);  // an entry is in both or in none
    indices.reserve(count);
    StreamHandle* handle = nullptr;
    for (uint32_t i = 0; i < count; ++i) {
      const Napi::Array entry = entries.Get(i).As<Napi::Array>();
      StreamHandle& next = unwrap<StreamHandle>(entry.Get(0u));
      try {
        if (handle && &next.device->engine != &handle->device->engine) {
          throw Error(ErrorCode::InvalidArgType, "Expected the streams of one device");
        }
        const auto call = make_stream_call(next, CallKind::Attend, entry.Get(1u), entry.Get(2u), entry.Get(3u), entry.Get(4u));
        submissions.push_back({call, entry.Get(5u).As<Napi::Function>()});
        indices.push_back(i);
        handle = &next;
      } catch (const Error& error) {
        results.Set(i, to_javascript(info.Env(), error).Value());
      } catch (const std::bad_alloc&) {
        results.Set(i, to_javascript(info.Env(), kNoRoom).Value());
      }
    }
    if (submissions.empty()) return results;
    uint32_t ticket = handle->environment->submit(info.Env(), handle->device->engine, submissions);
    for (const uint32_t i : indices) results.Set(i, ticket++);
    return results;
  });
}

// attendSync(stream, q, k, v, out), retrieveSync(stream, q, out): on this thread. `out` may overlap the inputs, and
// is untouched when the call fails.
template <CallKind kind> Napi::Value run_now(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    StreamHandle& handle = handle_of(info);
    const std::shared_ptr<Stream> stream = handle.stream;
    const StreamConfig& config = open_stream(handle).config;
    const Engine& engine = handle.device->engine;
    const Napi::Value none;
    const Arguments arguments = kind == CallKind::Attend
                                    ? read_arguments(kind, config, engine, info[1], info[2], info[3], info[4])
                                    : read_arguments(kind, config, engine, info[1], none, none, info[2]);
    stream->run_now(kind, in_place(arguments), handle.device->limit->most);
    return info.Env().Undefined();
  });
}

// snapshot(stream, mostOpen, settle) -> ticket. The image (core/image.h) of the tokens that the settle callback names is
// there to take. At most so many tokens are open when it has its turn.
Napi::Value snapshot(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    StreamHandle& handle = handle_of(info);
    const StreamConfig& config = open_stream(handle).config;
    DeviceHandle& device = *handle.device;
    const size_t bytes = Image::bytes(config, std::clamp<int64_t>(info[1].ToNumber().Int64Value(), 0, config.segment_length - 1));
    require_memory(2 * bytes, "a snapshot", device.engine.ledger());  // staged, then in an array
    auto call = std::make_shared<Call>();
    call->kind = CallKind::Snapshot;
    call->stream = handle.stream;
    call->limit = device.limit;
    call->memory.push_back(device.engine.backend().allocate_host(bytes, &Ledger::staging_bytes));
    call->tensors.output = call->memory.back()->data();
    call->output_bytes = bytes;
    return submit(info, handle, std::move(call));
  });
}

// take(target): copies the result of the call whose callback is running.
Napi::Value take(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Call* call = Environment::of(info.Env()).settling();
    if (!call || call->error) throw Error(ErrorCode::Device, "Expected a finished call but there is none");
    const ArrayView target = view_of(info[0]);
    if (call->tensors.output_place != Place::Host || target.bytes() != call->output_bytes) {
      throw Error(ErrorCode::Shape, "Expected an array of the result's length");
    }
    copy(target.data, call->tensors.output, call->output_bytes, call->limit->most);
    return info.Env().Undefined();
  });
}

// cancel([ticket, ...])
Napi::Value cancel(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Napi::Array given = info[0].As<Napi::Array>();
    Environment& environment = Environment::of(info.Env());
    const auto ticket = [&](uint32_t i) { return given.Get(i).As<Napi::Number>().Uint32Value(); };
    try {
      std::vector<uint32_t> tickets;
      for (uint32_t i = 0; i < given.Length(); ++i) tickets.push_back(ticket(i));
      environment.cancel(tickets, kAborted);
    } catch (const std::bad_alloc&) {  // an abort must not fail
      for (uint32_t i = 0; i < given.Length(); ++i) environment.cancel(std::array{ticket(i)}, kAborted);
    }
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
    return wrap<StreamHandle>(info.Env(), info.Env(), handle.device, open_stream(handle).fork());
  });
}

Napi::Value close(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    handle_of(info).close(kClosed);
    return info.Env().Undefined();
  });
}

Napi::Value is_closed(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), !handle_of(info).stream);
}

}  // namespace

void export_stream(Napi::Env env, Napi::Object exports) {
  exports.Set("attend", Napi::Function::New(env, attend));
  exports.Set("attendMany", Napi::Function::New(env, attend_many));
  exports.Set("attendSync", Napi::Function::New(env, run_now<CallKind::Attend>));
  exports.Set("retrieve", Napi::Function::New(env, retrieve));
  exports.Set("retrieveSync", Napi::Function::New(env, run_now<CallKind::Retrieve>));
  exports.Set("snapshot", Napi::Function::New(env, snapshot));
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

// Devices: listing, opening, closing, and making streams on them.
#include "addon/bindings.h"
#include "addon/convert.h"
#include "addon/handles.h"
#include "addon/making.h"
#include "devices.h"

namespace infini {
namespace {

// Made in good time: to close needs no memory, to make an Error does.
const Error kDeviceClosed(ErrorCode::Closed, "The device was closed during the call");

const DeviceReference& device_of(const Napi::CallbackInfo& info) { return unwrap<DeviceReference>(info[0]); }

Napi::Value list(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    Napi::Array devices = Napi::Array::New(info.Env());
    for (const DeviceInfo& device : list_devices(info[0].ToNumber().Int32Value())) {
      devices.Set(devices.Length(), to_javascript(info.Env(), device));
    }
    return devices;
  });
}

Napi::Value absence(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::String::New(info.Env(), cuda_absence()); });
}

// open(id, threads of this handle, threads the engine starts with)
Napi::Value open(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const int threads = info[1].ToNumber().Int32Value();
    Engine& engine = engine_for(info[0].ToString().Utf8Value(), info[2].ToNumber().Int32Value());
    auto device = std::make_shared<DeviceHandle>(
        DeviceHandle{engine, engine.info(), std::make_shared<ThreadLimit>(ThreadLimit{threads}), {}, {}, {}});
    device->info.threads = threads;
    return wrap<DeviceReference>(info.Env(), device);
  });
}

Napi::Value describe(const Napi::CallbackInfo& info) { return to_javascript(info.Env(), device_of(info)->info); }

Napi::Value stats(const Napi::CallbackInfo& info) {
  return to_javascript(info.Env(), device_of(info)->engine.ledger());
}

Napi::Value close(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto device = device_of(info);
    device->closed = true;
    while (!device->streams.empty()) (*device->streams.begin())->close(kDeviceClosed);
    while (!device->tensors.empty()) (*device->tensors.begin())->close();
    while (!device->models.empty()) (*device->models.begin())->close();
    return info.Env().Undefined();
  });
}

Napi::Value is_closed(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), device_of(info)->closed);
}

Napi::Value create_stream(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const DeviceReference& device = device_of(info);
    if (device->closed) throw Error(ErrorCode::Closed, "Expected an open device but it is closed");
    const StreamConfig config = StreamConfig::resolve(read_config(info[1].As<Napi::Object>()));
    return wrap<StreamHandle>(info.Env(), info.Env(), device, device->engine.create_stream(config));
  });
}

// resolve(device, config) -> [config with every default filled in, bytes of such a stream]
Napi::Value resolve(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const StreamConfig config = StreamConfig::resolve(read_config(info[1].As<Napi::Object>()));
    Napi::Array answer = Napi::Array::New(info.Env(), 2);
    answer.Set(0u, to_javascript(info.Env(), config));
    answer.Set(1u, double(device_of(info)->engine.backend().stream_bytes(config)));
    return answer;
  });
}

// freeBytes(device): what streams to come can take
Napi::Value free_bytes(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    return Napi::Number::New(info.Env(), double(device_of(info)->engine.backend().free_bytes()));
  });
}

// restoreStream(device, config, tokens, image) -> a stream in that state
Napi::Value restore_stream(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const DeviceReference& device = device_of(info);
    if (device->closed) throw Error(ErrorCode::Closed, "Expected an open device but it is closed");
    const StreamConfig config = StreamConfig::resolve(read_config(info[1].As<Napi::Object>()));
    const auto stream = device->engine.create_stream(config);
    const ArrayView image = view_of(info[3]);
    stream->write_image(info[2].ToNumber().Int64Value(), image.data, image.bytes());
    return wrap<StreamHandle>(info.Env(), info.Env(), device, stream);
  });
}

// restoreStreamLater(device, config, tokens, image, settle(error, stream)). Nobody writes to the image meanwhile.
Napi::Value restore_stream_later(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const DeviceReference& device = device_of(info);
    auto restore = [device, config = StreamConfig::resolve(read_config(info[1].As<Napi::Object>())),
                    tokens = info[2].ToNumber().Int64Value(), image = view_of(info[3]),
                    kept = Napi::Persistent(info[3].As<Napi::Object>())] {
      auto stream = device->engine.create_stream(config);
      stream->write_image(tokens, image.data, image.bytes());
      return stream;
    };
    make_later<StreamHandle>(info[4], device, "a stream was restored", std::move(restore));
    return info.Env().Undefined();
  });
}

// cpuFloor(kind, threads, bytes)
Napi::Value cpu_floor(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const std::string kind = info[0].ToString();
    const int threads = info[1].ToNumber().Int32Value();
    const int64_t bytes = info[2].ToNumber().Int64Value();
    return Napi::Number::New(info.Env(), kind == "read"    ? cpu_read_bandwidth(threads, bytes)
                                         : kind == "triad" ? cpu_triad_bandwidth(threads, bytes)
                                         : kind == "tiles" ? cpu_tile_flops(threads)
                                                           : cpu_peak_flops(threads));
  });
}

}  // namespace

void export_device(Napi::Env env, Napi::Object exports) {
  exports.Set("listDevices", Napi::Function::New(env, list));
  exports.Set("cudaAbsence", Napi::Function::New(env, absence));
  exports.Set("cpuFloor", Napi::Function::New(env, cpu_floor));
  exports.Set("openDevice", Napi::Function::New(env, open));
  exports.Set("deviceInfo", Napi::Function::New(env, describe));
  exports.Set("deviceStats", Napi::Function::New(env, stats));
  exports.Set("closeDevice", Napi::Function::New(env, close));
  exports.Set("deviceClosed", Napi::Function::New(env, is_closed));
  exports.Set("createStream", Napi::Function::New(env, create_stream));
  exports.Set("resolve", Napi::Function::New(env, resolve));
  exports.Set("freeBytes", Napi::Function::New(env, free_bytes));
  exports.Set("restoreStream", Napi::Function::New(env, restore_stream));
  exports.Set("restoreStreamLater", Napi::Function::New(env, restore_stream_later));
}

}  // namespace infini

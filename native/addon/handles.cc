#include "addon/handles.h"

namespace infini {

StreamHandle::StreamHandle(Napi::Env env, std::shared_ptr<DeviceHandle> device, std::shared_ptr<Stream> stream)
    : env(env),
      environment(Environment::of(env).shared_from_this()),
      device(std::move(device)),
      config(stream->config),
      byte_length(stream->byte_length()),
      stream(std::move(stream)) {
  environment->streams.insert(this);
  this->device->streams.insert(this);
  Napi::MemoryManagement::AdjustExternalMemory(env, byte_length);
}

StreamHandle::~StreamHandle() { close(Error(ErrorCode::Closed, "The stream was collected")); }

void StreamHandle::close(const Error& reason) {
  if (!stream) return;
  device->engine.cancel_all(*stream, reason);
  stream.reset();
  environment->streams.erase(this);
  device->streams.erase(this);
  Napi::MemoryManagement::AdjustExternalMemory(env, -byte_length);
}

}  // namespace infini

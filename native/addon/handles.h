// What the externals given to JavaScript point to.
#pragma once

#include <memory>
#include <unordered_set>

#include "core/engine.h"
#include "addon/environment.h"

namespace infini {

struct DeviceHandle {
  Engine& engine;
  DeviceInfo info;
  std::shared_ptr<ThreadLimit> limit;
  std::unordered_set<StreamHandle*> streams;  // not closed
  bool closed = false;
};

struct StreamHandle {
  StreamHandle(Napi::Env env, std::shared_ptr<DeviceHandle> device, std::shared_ptr<Stream> stream);
  ~StreamHandle();
  StreamHandle(const StreamHandle&) = delete;

  // Frees the state (once running work lets go of it) and fails pending calls with `reason`.
  void close(const Error& reason);

  const napi_env env;
  const std::shared_ptr<Environment> environment;
  const std::shared_ptr<DeviceHandle> device;
  const StreamConfig config;
  const int64_t byte_length;
  std::shared_ptr<Stream> stream;  // null: closed
};

// An external that owns a new StreamHandle.
Napi::Value wrap_stream(Napi::Env env, std::shared_ptr<DeviceHandle> device, std::shared_ptr<Stream> stream);

}  // namespace infini

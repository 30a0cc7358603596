// What the externals given to JavaScript point to. All of one JavaScript thread, and touched by it alone.
#pragma once

#include <memory>
#include <unordered_set>

#include "addon/environment.h"
#include "core/engine.h"

namespace infini {

struct StreamHandle;
struct BatchHandle;
struct MemoryHandle;
struct ModelHandle;

struct DeviceHandle {
  Engine& engine;
  DeviceInfo info;
  std::shared_ptr<ThreadLimit> limit;
  std::unordered_set<StreamHandle*> streams;  // not closed
  std::unordered_set<MemoryHandle*> tensors;  // not closed
  std::unordered_set<ModelHandle*> models;    // not closed
  bool closed = false;
};

struct StreamHandle {
  StreamHandle(Napi::Env env, std::shared_ptr<DeviceHandle> device, std::shared_ptr<Stream> stream);
  ~StreamHandle();
  StreamHandle(const StreamHandle&) = delete;

  // Frees the state (once running work lets go of it), fails pending calls with `reason`, closes its batches.
  void close(const Error& reason);

  const napi_env env;
  const std::shared_ptr<Environment> environment;
  const std::shared_ptr<DeviceHandle> device;
  const StreamConfig config;
  const int64_t byte_length;
  std::shared_ptr<Stream> stream;             // null: closed
  std::unordered_set<BatchHandle*> batches;  // not closed
};

// A batch is closed when one of its streams is: it would never step again, and would keep the others' state alive.
struct BatchHandle {
  BatchHandle(std::shared_ptr<DeviceHandle> device, const std::vector<StreamHandle*>& members);
  ~BatchHandle();
  BatchHandle(const BatchHandle&) = delete;

  void close(const Error& reason);

  const std::shared_ptr<DeviceHandle> device;
  std::shared_ptr<Batch> batch;  // null: closed
  std::vector<StreamHandle*> members;
};

// A device tensor or a host buffer. Calls that use the memory share it: closing only lets go.
struct MemoryHandle {
  MemoryHandle(Napi::Env env, std::shared_ptr<DeviceHandle> device, std::shared_ptr<TensorMemory> memory);
  ~MemoryHandle();
  MemoryHandle(const MemoryHandle&) = delete;

  void close();

  const napi_env env;
  const std::shared_ptr<DeviceHandle> device;
  const bool is_tensor;                  // else a host buffer: its ArrayBuffer outlives its device handle
  std::shared_ptr<TensorMemory> memory;  // null: closed
};

// A model's weights. Calls share them: closing only lets go.
struct ModelHandle {
  ModelHandle(Napi::Env env, std::shared_ptr<DeviceHandle> device, std::shared_ptr<const Model> model);
  ~ModelHandle();
  ModelHandle(const ModelHandle&) = delete;

  void close();

  const napi_env env;
  const std::shared_ptr<DeviceHandle> device;
  const int64_t byte_length;
  std::shared_ptr<const Model> model;  // null: closed
};

// An external that owns a new handle.
template <class Handle, class... Arguments> Napi::Value wrap(Napi::Env env, Arguments&&... arguments) {
  auto handle = std::make_unique<Handle>(std::forward<Arguments>(arguments)...);
  const Napi::Value wrapped = Napi::External<Handle>::New(env, handle.get(), [](Napi::Env, Handle* owned) { delete owned; });
  handle.release();  // not before: a thread that is being terminated gets no externals
  return wrapped;
}

template <class Handle> Handle& unwrap(const Napi::Value& value) { return *value.As<Napi::External<Handle>>().Data(); }

using DeviceReference = std::shared_ptr<DeviceHandle>;

}  // namespace infini

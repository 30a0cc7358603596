#include "addon/handles.h"

namespace infini {
namespace {

// Made in good time: to close needs no memory, to make an Error does.
const Error kStreamCollected(ErrorCode::Closed, "The stream was collected");
const Error kBatchCollected(ErrorCode::Closed, "The batch was collected");

}  // namespace

StreamHandle::StreamHandle(Napi::Env env, std::shared_ptr<DeviceHandle> device, std::shared_ptr<Stream> stream)
    : env(env),
      environment(Environment::of(env).shared_from_this()),
      device(std::move(device)),
      config(stream->config),
      byte_length(stream->byte_length()),
      stream(std::move(stream)) {
  this->device->streams.insert(this);
  try {
    environment->streams.insert(this);
    Napi::MemoryManagement::AdjustExternalMemory(env, byte_length);
  } catch (...) {
    environment->streams.erase(this);
    this->device->streams.erase(this);
    throw;
  }
}

StreamHandle::~StreamHandle() { close(kStreamCollected); }

void StreamHandle::close(const Error& reason) {
  if (!stream) return;
  device->engine.cancel_all(*stream, reason);
  while (!batches.empty()) (*batches.begin())->close(reason);
  stream.reset();
  environment->streams.erase(this);
  device->streams.erase(this);
  Napi::MemoryManagement::AdjustExternalMemory(env, -byte_length);
}

BatchHandle::BatchHandle(std::shared_ptr<DeviceHandle> given, const std::vector<StreamHandle*>& streams)
    : device(std::move(given)), members(streams) {
  std::vector<std::shared_ptr<Stream>> shared;
  for (StreamHandle* member : members) shared.push_back(member->stream);
  batch = std::make_shared<Batch>(device->engine.backend(), std::move(shared));
  try {
    for (StreamHandle* member : members) member->batches.insert(this);
  } catch (...) {
    for (StreamHandle* member : members) member->batches.erase(this);
    throw;
  }
}

BatchHandle::~BatchHandle() { close(kBatchCollected); }

void BatchHandle::close(const Error& reason) {
  if (!batch) return;
  device->engine.cancel_all(*batch, reason);
  batch.reset();
  for (StreamHandle* member : members) member->batches.erase(this);
  members.clear();
}

MemoryHandle::MemoryHandle(Napi::Env env, std::shared_ptr<DeviceHandle> device, std::shared_ptr<TensorMemory> given)
    : env(env), device(std::move(device)), is_tensor(given->place() == Place::Device), memory(std::move(given)) {
  if (!is_tensor) return;  // V8 counts the bytes of an ArrayBuffer itself
  this->device->tensors.insert(this);
  Napi::MemoryManagement::AdjustExternalMemory(env, int64_t(memory->bytes()));
}

MemoryHandle::~MemoryHandle() { close(); }

void MemoryHandle::close() {
  if (!memory) return;
  if (is_tensor) {
    device->tensors.erase(this);
    Napi::MemoryManagement::AdjustExternalMemory(env, -int64_t(memory->bytes()));
  }
  memory.reset();
}

ModelHandle::ModelHandle(Napi::Env env, std::shared_ptr<DeviceHandle> given, std::shared_ptr<const Model> model)
    : env(env), device(std::move(given)), byte_length(model->dense->byte_length()), model(std::move(model)) {
  device->models.insert(this);
  Napi::MemoryManagement::AdjustExternalMemory(env, byte_length);
}

ModelHandle::~ModelHandle() { close(); }

void ModelHandle::close() {
  if (!model) return;
  model.reset();
  device->models.erase(this);
  Napi::MemoryManagement::AdjustExternalMemory(env, -byte_length);
}

}  // namespace infini

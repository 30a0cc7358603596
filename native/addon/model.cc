// Models: loading weights, and sending tokens through the layers. One function per native call of lib/model.
#include <unordered_set>

#include "addon/bindings.h"
#include "addon/convert.h"
#include "addon/handles.h"
#include "addon/making.h"
#include "core/memory_budget.h"
#include "core/weight_file.h"

namespace infini {
namespace {

int whole(const Napi::Object& object, const char* key) { return object.Get(key).ToNumber().Int32Value(); }
std::string text(const Napi::Object& object, const char* key) { return object.Get(key).ToString().Utf8Value(); }

ModelConfig read_model_config(const Napi::Object& object) {
  ModelConfig config;
  config.vocabulary = whole(object, "vocabulary");
  config.width = whole(object, "width");
  config.layers = whole(object, "layers");
  config.heads = whole(object, "heads");
  config.kv_heads = whole(object, "kvHeads");
  config.head_dim = whole(object, "headDim");
  config.mlp_width = whole(object, "mlpWidth");
  config.tied = object.Get("tied").ToBoolean();
  config.gated = object.Get("gated").ToBoolean();
  const std::string activation = text(object, "activation");
  config.activation = activation == "silu"   ? Activation::Silu
                      : activation == "gelu" ? Activation::Gelu
                                             : Activation::GeluTanh;
  config.norm_epsilon = object.Get("normEpsilon").ToNumber().DoubleValue();
  return config;
}

// [{ kind, layer, dtype, file, begin, rows, columns }, ...]
std::map<std::pair<Weight, int>, StoredWeight> read_weights(const Napi::Array& list) {
  std::map<std::pair<Weight, int>, StoredWeight> weights;
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const Napi::Object entry = list.Get(i).As<Napi::Object>();
    const std::string kind = text(entry, "kind"), dtype = text(entry, "dtype");
    for (int weight = 0; weight <= int(Weight::Head); ++weight) {
      if (kind != name_of(Weight(weight))) continue;
      weights[{Weight(weight), whole(entry, "layer")}] = {
          dtype == "float32" ? DType::Float32 : dtype == "bfloat16" ? DType::BFloat16 : DType::Float16,
          whole(entry, "file"), entry.Get("begin").ToNumber().Int64Value(), entry.Get("rows").ToNumber().Int64Value(),
          entry.Get("columns").ToNumber().Int64Value(), text(entry, "fileName")};
    }
  }
  return weights;
}

// loadModel(device, config, weights, settle(error, model))
Napi::Value load(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const DeviceReference& device = unwrap<DeviceReference>(info[0]);
    auto load = [device, config = read_model_config(info[1].As<Napi::Object>()),
                 weights = read_weights(info[2].As<Napi::Array>())]() mutable {
      FileWeights files(config, std::move(weights));
      return std::make_shared<Model>(Model{config, device->engine.backend().create_dense(config, files)});
    };
    make_later<ModelHandle>(info[3], device, "the model was loaded", std::move(load));
    return info.Env().Undefined();
  });
}

std::shared_ptr<const Model> open_model(ModelHandle& handle) {
  if (!handle.model) throw Error(ErrorCode::Closed, "Expected an open model but it is closed");
  return handle.model;
}

// The streams of the sessions, session by session and in each layer by layer.
std::vector<std::shared_ptr<Stream>> read_streams(const Napi::Array& list, const Engine& engine) {
  std::vector<std::shared_ptr<Stream>> streams;
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const StreamHandle& handle = unwrap<StreamHandle>(list.Get(i));
    if (!handle.stream) throw Error(ErrorCode::Closed, "Expected an open session but it is closed");
    if (&handle.device->engine != &engine) throw Error(ErrorCode::InvalidArgType, "Expected a session of the model's device");
    streams.push_back(handle.stream);
  }
  return streams;
}

// Distinct, and each of the shape that the model's layers have.
void check_streams(const std::vector<std::shared_ptr<Stream>>& streams, const ModelConfig& config) {
  std::unordered_set<const Stream*> seen;
  for (const auto& stream : streams) {
    const StreamConfig& layer = stream->config;
    if (layer.heads != config.heads || layer.kv_heads != config.kv_heads || layer.head_dim != config.head_dim ||
        layer.value_dim != config.head_dim || layer.dtype != DType::Float32) {
      throw Error(ErrorCode::Shape, "Expected streams of the model's shape");
    }
    if (!seen.insert(stream.get()).second) throw Error(ErrorCode::Busy, "Expected distinct sessions but one occurs twice");
  }
}

// One per layer, of that layer's streams.
std::vector<std::shared_ptr<Batch>> read_batches(const Napi::Value& given, const std::vector<std::shared_ptr<Stream>>& streams,
                                                 size_t sessions) {
  std::vector<std::shared_ptr<Batch>> batches;
  if (given.IsUndefined()) return batches;
  const Napi::Array list = given.As<Napi::Array>();
  const size_t layers = streams.size() / sessions;
  if (list.Length() != layers) throw Error(ErrorCode::Shape, "Expected one batch per layer");
  for (uint32_t layer = 0; layer < layers; ++layer) {
    const auto& batch = unwrap<BatchHandle>(list.Get(layer)).batch;
    if (!batch) throw Error(ErrorCode::Closed, "Expected open sessions but one is closed");
    bool fits = batch->streams.size() == sessions;
    for (size_t i = 0; fits && i < sessions; ++i) fits = batch->streams[i] == streams[i * layers + layer];
    if (!fits) throw Error(ErrorCode::Shape, "Expected batches of the sessions' streams");
    batches.push_back(batch);
  }
  return batches;
}

// Appends a session's tokens; returns how many.
int64_t append_tokens(const Napi::Value& value, std::vector<int32_t>& tokens) {
  const ArrayView array = view_of(value);
  if (array.type != napi_int32_array) throw Error(ErrorCode::InvalidArgType, "Expected an Int32Array");
  const auto* numbers = static_cast<const int32_t*>(array.data);
  tokens.insert(tokens.end(), numbers, numbers + array.elements);
  return int64_t(array.elements);
}

// forward(model, [stream, ...], [batch per layer] | undefined, [tokens per session], wanted, settle) -> ticket. wanted:
// whether the logits after each session's last token are wanted; they are there to take() when the call has settled.
Napi::Value forward(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    ModelHandle& handle = unwrap<ModelHandle>(info[0]);
    const auto model = open_model(handle);
    const ModelConfig& config = model->config;
    DeviceHandle& device = *handle.device;
    auto streams = read_streams(info[1].As<Napi::Array>(), device.engine);
    Chunk chunk;
    const Napi::Array sessions = info[3].As<Napi::Array>();
    const bool wanted = info[4].ToBoolean();
    std::vector<int64_t> counts;
    for (uint32_t i = 0; i < sessions.Length(); ++i) {
      counts.push_back(append_tokens(sessions.Get(i), chunk.tokens));
      if (counts.back() < 1) throw Error(ErrorCode::Shape, "Expected at least one token for each session");
      if (wanted) chunk.wanted.push_back(int64_t(chunk.tokens.size()) - 1);
    }
    const int64_t rows = int64_t(chunk.tokens.size());
    if (rows == 0 || streams.size() != counts.size() * size_t(config.layers)) {
      throw Error(ErrorCode::Shape, "Expected tokens and streams for each session");
    }
    for (const int32_t token : chunk.tokens) {
      if (token < 0 || token >= config.vocabulary) throw Error(ErrorCode::OutOfRange, "Expected tokens of the vocabulary");
    }
    check_streams(streams, config);
    auto batches = read_batches(info[2], streams, counts.size());
    if (!batches.empty() && rows != int64_t(counts.size())) {
      throw Error(ErrorCode::Shape, "Expected one token for each session of a batch");
    }

    auto call = std::make_shared<Call>();
    call->kind = CallKind::Forward;
    call->limit = device.limit;
    if (wanted) {
      call->output_bytes = chunk.wanted.size() * size_t(config.vocabulary) * sizeof(float);
      require_memory(2 * call->output_bytes, "the logits of one call", device.engine.ledger());  // staged, then in an array
      call->memory.push_back(device.engine.backend().allocate_host(call->output_bytes, &Ledger::staging_bytes));
      call->tensors.output = call->memory.back()->data();
      chunk.logits = static_cast<float*>(call->tensors.output);
    }
    call->forward = std::make_unique<Forward>(model, std::move(streams), std::move(batches), counts, std::move(chunk));
    return Napi::Number::New(info.Env(), Environment::of(info.Env()).submit(info.Env(), device.engine,
                                                                            {{call, info[5].As<Napi::Function>()}}));
  });
}

// weightBytes(model)
Napi::Value weight_bytes(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    return Napi::Number::New(info.Env(), double(open_model(unwrap<ModelHandle>(info[0]))->dense->byte_length()));
  });
}

Napi::Value close(const Napi::CallbackInfo& info) {
  unwrap<ModelHandle>(info[0]).close();
  return info.Env().Undefined();
}

Napi::Value is_closed(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), !unwrap<ModelHandle>(info[0]).model);
}

}  // namespace

void export_model(Napi::Env env, Napi::Object exports) {
  exports.Set("loadModel", Napi::Function::New(env, load));
  exports.Set("forward", Napi::Function::New(env, forward));
  exports.Set("weightBytes", Napi::Function::New(env, weight_bytes));
  exports.Set("closeModel", Napi::Function::New(env, close));
  exports.Set("modelClosed", Napi::Function::New(env, is_closed));
}

}  // namespace infini

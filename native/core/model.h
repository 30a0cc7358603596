// A decoder of Llama's shape whose attention is Infini-attention: what it is made of, and its dense layers on a device.
//
// A *chunk* is some tokens of some sessions, row by row. Its way through the model is
//   step(0) -> attention of layer 0 -> step(1) -> attention of layer 1 -> ... -> step(layers)
// where step(0) begins with the embedding, every later one with the output projection and the MLP of the layer before,
// each ends with the queries, keys and values of its own layer, and the last one with the logits. The attention is done by
// ordinary streams (StreamState), one per session and layer, on the rows of that session.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/backend.h"

namespace infini {

enum class Activation : uint8_t { Silu, Gelu, GeluTanh };  // Gelu: x Phi(x); GeluTanh: its approximation by tanh

struct ModelConfig {
  int vocabulary, width, layers;
  int heads, kv_heads, head_dim;
  int mlp_width;
  bool tied;   // the head is the embedding
  bool gated;  // the MLP is down(act(gate(x)) * up(x)); else down(act(up(x)))
  Activation activation;
  double norm_epsilon;

  int query_width() const { return heads * head_dim; }
  int key_width() const { return kv_heads * head_dim; }  // and the values'
};

// Each matrix is [outputs][inputs], y = x W^T, as Llama's; a norm is one row. Embedding and head are [vocabulary][width].
enum class Weight : uint8_t {
  Embedding, AttentionNorm, Query, Key, Value, Output, MlpNorm, MlpGate, MlpUp, MlpDown, FinalNorm, Head
};

// Where a model's weights come from. Called by one thread.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual DType dtype(Weight weight, int layer) const = 0;
  // Rows from `begin` to `end`, as they are stored. All are finite. Throws Error(Model).
  virtual void read(Weight weight, int layer, int64_t begin, int64_t end, void* to) = 0;
};

struct Chunk {
  std::vector<int32_t> tokens;        // each below the vocabulary
  std::vector<int64_t> wanted;        // rows whose logits are wanted, ascending; none: the last step is left out
  float* logits = nullptr;            // [wanted][vocabulary], on the host
};

// One chunk on its way. It outlives the works that it makes, which are run one after the other.
class DenseRun {
 public:
  virtual ~DenseRun() = default;
  // The attention's operands for the rows from `first` on: float32, in the device's own memory, output_visible false.
  virtual Tensors tensors(int64_t first, int64_t count) const = 0;
  virtual std::unique_ptr<Work> step(int layer) = 0;  // commit() of these does nothing
};

// The dense layers of one model, resident on a device. Several runs may be under way at once.
class DenseLayers {
 public:
  virtual ~DenseLayers() = default;
  // `chunk` outlives the run. Throws Error(OutOfMemory), std::bad_alloc.
  virtual std::unique_ptr<DenseRun> begin(const Chunk& chunk) = 0;
  virtual int64_t byte_length() const = 0;  // of the weights
};

// What JavaScript holds, shared with the calls that use it.
struct Model {
  ModelConfig config;
  std::unique_ptr<DenseLayers> dense;
};

}  // namespace infini

// What the host asks of the device: plain structs, and one function per kernel that enqueues it on a CUDA stream.
//
// A *step* moves several streams of one configuration forward together: a Job says what one stream contributes.
// The tokens of a job fall into pieces (core/segments.h): the first may continue the stream's open segment, every
// piece but the last one fills its segment, the last may. A full segment ends at a *border*, where it is absorbed.
// Every launch is bit for bit the same for a job whatever other jobs share it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace infini::cuda {

enum class Element : uint8_t { Float32, BFloat16, Float16 };

__host__ __device__ constexpr int padded(int dim) { return (dim + 15) / 16 * 16; }

// Where a call first fails: the smallest token * 8 + site, counted in the tokens of the call.
using Failure = unsigned long long;
constexpr Failure kNoFailure = ~0ull;
enum Site : int { kQuery, kKey, kValue, kOutput, kMemory };  // as in core/error.h

// One configuration.
struct Shape {
  Element element;
  bool delta;             // the rule; else linear
  bool local_when_empty;  // emptyRead 'local'
  int heads, kv_heads, head_dim, value_dim, segment_length;
  float scale;            // of the logits
  const float2* gate;     // [heads]: sigmoid(beta), 1 - sigmoid(beta)
  const float2* rotary;   // [segment_length][head_dim / 2]: cosine, sine; null: no rope
};

// All pointers are to device memory, 16-byte aligned; the tensors' need not be where a head's rows are not.
struct Job {
  const void* query;       // [tokens][heads][head_dim]
  const void* key;         // [tokens][kv_heads][head_dim]
  const void* value;       // [tokens][kv_heads][value_dim]
  void* output;            // [tokens][heads][value_dim]
  void* cached_keys;       // the open segment: [kv_heads][segment_length][head_dim], unrotated
  void* cached_values;     // [kv_heads][segment_length][value_dim]
  const float* matrix;     // M before the step: [kv_heads][head_dim][value_dim]
  const double* normalizer;  // z before the step: [kv_heads][head_dim]
  float* next_matrix;      // M after the job's last border; may be `matrix` itself
  double* next_normalizer;
  Failure* failure;
  long long first_token;   // of the job, counted in the tokens of the call
  int tokens;
  int open;                // tokens of the open segment that are in the cache
  int absorbed;            // whether the memory before the step holds anything
  int borders;             // segments that the job fills
  int pieces;              // borders, and one more when tokens are left over
  int first_border;        // where the job's borders and pieces lie in the workspace
  int first_piece;
};

// A border or a piece: which job's, and which of that job's.
struct Place {
  int job, index;
};

// forward_tile_rows() tokens of one piece, or retrieve_tile_rows() of one call: the `tile`-th.
struct QueryTile {
  int job, piece, tile;
};

// Scratch of one step. `padded` dimensions are multiples of 16; what lies beyond the real ones is zero.
struct Workspace {
  double* key_sums;    // [borders][kv_heads][head_dim]: sum of sigma(k) over the segment
  float* normalizers;  // [pieces][kv_heads][padded head_dim]: z before the piece
  float* sums;         // [borders][kv_heads][chunks][padded head_dim][padded value_dim + padded head_dim if delta]: B | G
                       // of every chunk; or of all together, whole_sums
  void* snapshots;     // [pieces][kv_heads][terms][padded head_dim][padded value_dim]: M before the piece
  bool whole_sums = false;  // the chunks are added up where they are made, one after the other, to the same bits
};

// M as the forward kernel multiplies it: float32 for float32 streams, one bfloat16 for bfloat16 streams, the sum of
// two bfloat16 (terms) for float16 streams. Never float16: M outgrows it.
__host__ __device__ constexpr int snapshot_terms(Element element) { return element == Element::Float16 ? 2 : 1; }
constexpr int snapshot_bytes(Element element) { return element == Element::Float32 ? 4 : 2; }

// Tokens of one partial sum in Workspace::sums, on the segment's own grid: the order of additions depends on nothing else.
constexpr int kChunkTokens = 512;
__host__ __device__ constexpr int chunks(int segment_length) { return (segment_length + kChunkTokens - 1) / kChunkTokens; }

// ---- state: absorbing full segments (key_sums.cu, normalizers.cu, sums.cu, chain.cu). In this order; normalizers and chain also with 0 borders, to
// publish the memory before the only piece.
cudaError_t launch_key_sums(const Shape&, const Job* jobs, const Place* borders, int border_count, const Workspace&, cudaStream_t);
cudaError_t launch_normalizers(const Shape&, const Job* jobs, int job_count, const Workspace&, cudaStream_t);
cudaError_t launch_sums(const Shape&, const Job* jobs, const Place* borders, int border_count, const Workspace&, cudaStream_t);
cudaError_t launch_chain(const Shape&, const Job* jobs, int job_count, const Workspace&, cudaStream_t);

// ---- forward: outputs of any number of tokens (kernels/forward.cu); tiles in the order of the list, longest first.
int forward_tile_rows(const Shape&);
cudaError_t launch_forward(const Shape&, const Job* jobs, const QueryTile* tiles, int tile_count, const Workspace&, cudaStream_t);

// ---- retrieve: A_mem alone (kernels/retrieve.cu); each job has one piece, its published memory.
int retrieve_tile_rows(const Shape&);
cudaError_t launch_retrieve(const Shape&, const Job* jobs, const QueryTile* tiles, int tile_count, const Workspace&, cudaStream_t);

// ---- decode: at most kDecodeTokens tokens that lie in one segment (kernels/decode.cu). Also appends them to the cache.
constexpr int kDecodeTokens = 4;
// Scratch is zeroed once, when it is allocated: each launch, of any shape and count, leaves it zeroed where it must be.
// most_tokens: of any of the jobs.
int64_t decode_scratch_bytes(const Shape&, int job_count, int most_tokens = kDecodeTokens);
cudaError_t launch_decode(const Shape&, const Job* jobs, int job_count, void* scratch, cudaStream_t,
                          int most_tokens = kDecodeTokens);

// ---- dense: the layers of a model that are not attention (kernels/dense.cu). Activations are rows of float32, one behind
// the other. A row's numbers are bit for bit the same whatever rows are beside it. Pointers are 16-byte aligned.
enum class Act : uint8_t { None, Silu, Gelu, GeluTanh };  // Gelu: x Phi(x); GeluTanh: its approximation by tanh
enum class Into : uint8_t { Store, Add, Times };          // y = v, y += v, y *= v

// v = act(x W^T). y is another tensor than x.
struct Linear {
  Element element;     // of W
  const void* weight;  // W: [outputs][inputs]
  int inputs, outputs, rows;
  const float* x;      // [rows][inputs]
  float* y;            // [rows][outputs]
  Act act;
  Into into;
};
cudaError_t launch_linear(const Linear&, cudaStream_t);
// y = x * weight / sqrt(mean(x^2) + epsilon) of every row; the weights are of this type.
cudaError_t launch_normalize(Element, const void* weight, const float* x, float* y, int width, int rows, double epsilon,
                             cudaStream_t);
// Row i of `to` is row indices[i] of the table, which is of this type.
cudaError_t launch_gather(Element, const void* table, const int* indices, float* to, int width, int rows,
                          cudaStream_t);

// ---- upkeep (kernels/upkeep.cu)
// Whether the current GPU can run the kernels: code for it is loaded, or compiled.
cudaError_t load_code();
// Copies the keys and values of each job's last piece that stays open into its cache.
cudaError_t launch_append(const Shape&, const Job* jobs, int job_count, int most_tokens, cudaStream_t);
// Notes the first value that is not finite in each job's query, key and value (null: none).
cudaError_t launch_check(const Shape&, const Job* jobs, int job_count, long long most_tokens, cudaStream_t);

}  // namespace infini::cuda

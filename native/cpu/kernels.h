// The arithmetic of the CPU backend as plain functions on plain arrays: one table of them per SIMD level.
// Nothing here may include a standard container or algorithm: kernels.cc is compiled for instruction sets that
// this processor may lack, and the linker must never pick such a copy of a shared inline function.
#pragma once

#include <cstddef>
#include <cstdint>

namespace infini::cpu {

enum class Element : uint8_t { F32, BF16, F16 };

constexpr int kPanel = 16;      // keys are cached in panels of 16: [headDim][16], so that lanes are keys
constexpr int kBlock = 64;      // keys per softmax step: the longest chain of float32 additions
constexpr int kTokens = 64;     // tokens per step of the state update
constexpr int kTileRows = 60;   // query rows per tile, at most: a multiple of the register tile's 6 or 12 rows
constexpr int kStateRows = 32;  // rows of M per unit of the state update, at most

template <class T> constexpr T padded(T columns) { return (columns + 15) / 16 * 16; }

// The open segment of one key-value head, as it lies in a stream's cache.
struct Segment {
  const void* keys;    // panels of [headDim][kPanel]; the last one is as narrow as length % kPanel demands
  const void* values;  // [length][valueDim]
  int64_t length;      // N
};

// M and z of one key-value head.
struct Memory {
  const float* matrix;       // [headDim][valueDim]
  const double* normalizer;  // [headDim]
};

// Queries of one key-value head's group: row = token * group + head within the group.
struct Rows {
  const void* data;     // element [token][head][dim] at token * token_stride + head * dim
  int64_t token_stride; // in elements
  int group;
  int64_t begin, end;   // rows of this tile
};

struct Dims {
  Element element;
  int head_dim, value_dim;
};

// Segment-local rotary table: cos and sin of position * frequency, in panels like the keys: [headDim / 2][kPanel].
struct Rotary {
  const double* cosines;
  const double* sines;
};

struct Forward {
  Dims dims;
  Rows queries;
  void* output;                // [token][head][valueDim], first head of the group
  int64_t output_stride;       // elements between tokens
  Segment segment;
  int64_t start;               // position in the segment of row 0's token
  double scale;
  const Rotary* rotary;        // null: no rotary positions
  const Memory* memory;        // null: nothing is absorbed
  const double* gate;          // [group] sigmoid(beta)
  const double* gate_rest;     // [group] 1 - sigmoid(beta); 1 where an empty memory leaves the local part alone
};

struct Retrieve {
  Dims dims;
  Rows queries;
  void* output;
  int64_t output_stride;
  const Memory* memory;        // null: nothing is absorbed, the result is zero
};

// U = V (linear) or V - retrieval(K) (delta): what the segment adds to the memory under its keys.
struct Residual {
  Dims dims;
  Segment segment;
  int64_t begin, end;          // tokens, at most kTokens, begin a multiple of kTokens
  const Memory* memory;        // null: nothing to subtract
  bool exact;                  // in float64; else in float32
  void* features;              // sigma(K), of that type, in panels as the keys; whole panels
  void* residual;              // U, of that type, [length][padded(valueDim)]
};

// Rows of M' = M + sigma(K)^T U and z' = z + sum sigma(k).
struct Absorb {
  Dims dims;
  Segment segment;
  bool exact;                  // as for the residual, whose results these are
  const void* features;
  const void* residual;
  int begin, end;              // rows of M, at most kStateRows
  const Memory* memory;        // the old state; null: zeros
  float* matrix;               // the new state; may be the old one's arrays
  double* normalizer;
};

constexpr int kOutputs = 64;  // outputs in a panel of a weight matrix (dense.h)

enum class Act : uint8_t { None, Silu, Gelu, GeluTanh };
enum class Into : uint8_t { Store, Add, Times };  // y = v, y += v, y *= v

// v = act(x W^T) for some rows and some panels of W.
struct Linear {
  Element element;             // of the weights
  const void* panels;          // [outputs / kOutputs][inputs][kOutputs], the last one filled up with zeros
  int64_t inputs, outputs;
  int64_t rows;
  const float* x;              // [rows][inputs] at x_stride
  int64_t x_stride;
  float* y;                    // [rows][outputs] at y_stride
  int64_t y_stride;
  int64_t first_panel, end_panel;
  Act act;
  Into into;
};

struct Kernels {
  const char* name;
  // First element that is NaN or infinite, or -1.
  int64_t (*find_non_finite)(Element element, const void* data, int64_t count);
  // Each returns the first token (of the rows' call) whose logit or output overflows, or -1.
  int64_t (*forward)(const Forward& work, void* workspace);
  int64_t (*retrieve)(const Retrieve& work, void* workspace);
  // False when the head's whole segment must be done exactly.
  bool (*residual)(const Residual& work, void* workspace);
  // False when a new element of M is not finite.
  bool (*absorb)(const Absorb& work, void* workspace);
  // The dense layers of a model.
  void (*linear)(const Linear& work);
  void (*decode_strided)(Element element, const void* from, int64_t stride, int64_t count, float* to);
  void (*normalize)(const float* x, const float* weight, int64_t width, double epsilon, float* y);
  // For benchmarks (floors.h). Those that multiply return the operations done; each leaves something in *sink.
  double (*multiply_adds)(int64_t rounds, float* sink);
  double (*multiply_tiles)(int64_t rounds, float* sink);
  void (*read_through)(const float* data, int64_t count, float* sink);
  void (*triad)(const float* a, const float* b, int64_t count, float* to);
};

// Scratch one call of any kernel needs.
size_t workspace_bytes(int head_dim, int value_dim);

namespace portable { extern const Kernels kernels; }
namespace avx2 { extern const Kernels kernels; }
namespace avx512 { extern const Kernels kernels; }
namespace amx { extern const Kernels kernels; }    // avx512 with tiles for bfloat16
namespace wide { extern const Kernels kernels; }   // avx512's vectors on AVX2, for tests: only when asked for
namespace tiles { extern const Kernels kernels; }  // amx's, with a model of the tiles in software, for tests

// The best table this processor can run and INFINI_CPU, if set, allows. Throws Error(NoDevice) if that names no level.
const Kernels& select_kernels();

}  // namespace infini::cpu

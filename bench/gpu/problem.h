// One case of the kernel benchmark: streams in the middle of their lives, each with a memory that holds something,
// and a new segment (or, for decode, one new token behind half a segment).
//
//   forward  the outputs of one segment: local attention, retrieval, gate
//   state    absorbing it: sums over its keys and values, new M and z
//   step     both, as a call that fills a segment runs them
//   decode   one token
// Every tensor of every stream is memory of its own, filled from one block of noise; 16-bit elements are bfloat16.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "device_array.h"
#include "launch.h"
#include "reference.h"

namespace infini::cuda::bench {

enum class Kind { Forward, State, Step, Decode };

struct Case {
  Kind kind;
  int segment, dim, heads, streams;
  int open() const { return kind == Kind::Decode ? segment / 2 : 0; }
};

class Problem {
 public:
  Problem(const Case& which, uint64_t seed);

  // What is timed. Gives the same results each time.
  void enqueue(cudaStream_t stream);

  // Compares samples of the results with float64: a sentence for the first that is wrong, or nothing.
  std::string wrong() const;

  // Changes a result on the device, so that wrong() must find it.
  void spoil();

 private:
  void enqueue_state(cudaStream_t stream);
  reference::Matrix rows_of(const DeviceArray<uint16_t>& tensor, int64_t stream, int head, int count) const;
  reference::Memory memory_of(const DeviceArray<float>& matrix, const DeviceArray<double>& normalizer, int64_t stream,
                              int head) const;
  std::string wrong_output(int stream, int head) const;
  std::string wrong_state(int stream, int head) const;

  Case case_;
  Shape shape_{};
  int tokens_;
  DeviceArray<float2> gate_;
  DeviceArray<uint16_t> query_, key_, value_, output_, cached_keys_, cached_values_;
  DeviceArray<float> matrix_, next_matrix_;
  DeviceArray<double> normalizer_, next_normalizer_;
  DeviceArray<Failure> failures_;
  DeviceArray<Job> jobs_;
  DeviceArray<Place> borders_;
  DeviceArray<QueryTile> tiles_;
  DeviceArray<double> key_sums_;
  DeviceArray<float> normalizers_, sums_;
  DeviceArray<uint16_t> snapshots_;
  DeviceArray<unsigned char> decode_scratch_;
  Workspace workspace_{};
};

}  // namespace infini::cuda::bench

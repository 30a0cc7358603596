// Streams of one configuration that step together, one token each, as one CUDA graph: the jobs (and the tensors that
// are on the host) go down, the decoding kernel runs, failures (and an output for the host) come back. What changes
// from step to step, positions and addresses, is in the jobs, so a graph is captured once for each way of the tensors:
// not by the first step, whose launch may have to load the kernel, which is not for a graph.
// Segments that a step fills are absorbed behind the graph, like those of any other call.
#pragma once

#include <array>
#include <vector>

#include "backend/mail.h"
#include "backend/stream_state.h"

namespace infini::cuda {

class CudaBatchState final : public BatchState {
 public:
  CudaBatchState(std::shared_ptr<Configuration> configuration, const std::vector<StreamState*>& streams);
  ~CudaBatchState() override;

  std::unique_ptr<Work> step(const Tensors& packed, const std::vector<Position>& positions) override;

  // Where the parts of the mail are. Tensors on the device have none.
  struct Layout {
    size_t jobs = 0, inputs[3] = {}, failures = 0, output = 0;
    size_t end = 0;  // of what comes back
    cudaGraphExec_t graph = nullptr;
  };
  // For tensors in these places.
  Layout& layout(const Tensors& packed);
  // What has been written to the mail; within a scope and under the queue's lock.
  void launch(Layout& layout);

  const std::shared_ptr<Configuration> configuration;
  Device& device;
  std::vector<CudaStreamState*> streams;
  Mail mail;
  OwnedEvent stepped;

 private:
  Layout make_layout(int places);
  void enqueue(const Layout& layout, cudaStream_t stream);
  cudaGraphExec_t capture(const Layout& layout);

  Block scratch_;
  std::array<Layout, 16> layouts_;  // by the places of query, key, value and output
  OwnedStream capturing_;
  bool launched_ = false;  // ever
};

}  // namespace infini::cuda

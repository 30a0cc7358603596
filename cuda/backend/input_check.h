// Finding what is wrong with a call's inputs, once its outputs or its memory came out as no finite numbers.
//
// The first value that is not finite: by token, then in the order of q, k, v. Tensors on the host are searched by the
// processor where they are, those on the device by a kernel; a stage looks at so many tokens.
#pragma once

#include <array>

#include "backend/round.h"
#include "core/backend.h"

namespace infini::cuda {

class InputCheck {
 public:
  InputCheck(const Configuration& configuration, const Tensors& tensors);

  bool done() const { return token_ == tokens_; }
  // Prepares a stage. It need not be launched unless something of it is on the device.
  void plan(Request& request);
  bool needs_device() const { return needs_device_; }
  // Ends the stage. kNoFailure: nothing found.
  Failure run(const Request& request);

 private:
  struct Input {
    const void* data;
    int64_t width;
    infini::Place place;
  };

  const void* at(const void* data, int64_t element) const;

  const int64_t tokens_;
  const std::array<Input, 3> inputs_;
  const DType dtype_;
  int64_t tokens_per_stage_;
  bool needs_device_ = false;
  int64_t token_ = 0, count_ = 0;  // of the stage
};

}  // namespace infini::cuda

// A stream's state as bytes, the same whatever the device: z (float64), M (float32), then the open segment's keys and
// values, token by token as attend took them. Snapshots are made of it, and streams that are moved.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/config.h"

namespace infini {

// Where its parts lie.
struct Image {
  Image(const StreamConfig& config, int64_t open, void* data);
  static size_t bytes(const StreamConfig& config, int64_t open);

  double* normalizer;
  float* matrix;
  void* keys;
  void* values;
};

// Whether a stream can be in this state after so many tokens. Throws Error(Snapshot) that says why not.
void check_image(const StreamConfig& config, int64_t tokens, const void* data, size_t bytes);

}  // namespace infini

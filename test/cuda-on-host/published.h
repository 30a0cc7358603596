// The workspace's memories, as the state kernels publish them before each piece, from the reference's.
#pragma once

#include <cmath>
#include <vector>

#include "device_array.h"
#include "launch.h"
#include "reference.h"

namespace infini::cuda {

// The error that a head's outputs may have, relative to their norm.
constexpr double output_bound(Element element) {
  return element == Element::Float32 ? 1e-5 : element == Element::BFloat16 ? 5e-3 : 1e-3;
}

// Of memories [pieces][kv_heads]. What nothing was absorbed into is NaN: it must not be read.
struct Published {
  DeviceArray<float> normalizers;
  ElementArray snapshots;

  Published(Element of_stream, const std::vector<reference::Memory>& memories) {
    const Element element = of_stream == Element::Float32 ? Element::Float32 : Element::BFloat16;
    std::vector<float> z;
    reference::Matrix m;
    for (const reference::Memory& memory : memories) {
      const int rows = padded(memory.head_dim), columns = padded(memory.value_dim);
      for (int i = 0; i < rows; ++i) {
        z.push_back(!memory.absorbed ? NAN : i < memory.head_dim ? float(memory.normalizer[size_t(i)]) : 0);
      }
      for (int term = 0; term < snapshot_terms(of_stream); ++term) {
        for (int i = 0; i < rows * columns; ++i) {
          const int row = i / columns, column = i % columns;
          const bool exists = row < memory.head_dim && column < memory.value_dim;
          double x = exists ? float(memory.matrix[size_t(row) * memory.value_dim + column]) : 0;
          if (term == 1) x -= rounded(element, x);
          m.push_back(memory.absorbed ? x : NAN);
        }
      }
    }
    normalizers = DeviceArray<float>(z);
    snapshots = ElementArray(element, m);
  }

  Workspace workspace() const { return {nullptr, normalizers.get(), nullptr, snapshots.get()}; }
};

}  // namespace infini::cuda

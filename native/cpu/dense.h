// The dense layers of a model: rows of float32 activations, weights in the type they were stored in.
//
// A weight matrix W [outputs][inputs] lies in panels of kOutputs outputs, each [inputs][kOutputs]: so the product of rows
// with a panel is matmul.h's, lanes are outputs, and every output is one chain of multiply-adds over the inputs.
#pragma once

#include "cpu/elements.h"
#include "cpu/matmul.h"

extern "C" double erf(double);
extern "C" double exp(double);
extern "C" double sqrt(double);
extern "C" double tanh(double);

namespace infini::cpu::INFINI_SIMD_LEVEL {

inline float activate(Act act, float value) {
  const double x = value;
  switch (act) {
    case Act::Silu: return float(x / (1.0 + exp(-x)));
    case Act::Gelu: return float(0.5 * x * (1.0 + erf(x * 0.70710678118654752440)));
    case Act::GeluTanh: return float(0.5 * x * (1.0 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x))));
    default: return value;
  }
}

// x / (1 + e^-x), in vectors: the usual one, and as long as a small model's products otherwise.
inline Floats silu(Floats x) {
  const Floats zero{};
  const Floats decay = exp_float(x < zero ? x : -x);  // e^-|x|
  return (x < zero ? x * decay : x) / (1.0f + decay);
}

// Panels of the products of `rows` rows; act and `into` are applied when an output is complete.
template <class W> inline void linear_panels(const Linear& work, const W* panels) {
  float tile[kTileRows * kOutputs];
  for (int64_t panel = work.first_panel; panel < work.end_panel; ++panel) {
    const W* weights = panels + panel * work.inputs * kOutputs;
    const int64_t first = panel * kOutputs;
    const int columns = work.outputs - first < kOutputs ? int(work.outputs - first) : kOutputs;
    for (int64_t begin = 0; begin < work.rows; begin += kTileRows) {
      const int rows = work.rows - begin < kTileRows ? int(work.rows - begin) : kTileRows;
      matmul(rows, padded(columns), work.inputs, Left<float>{work.x + begin * work.x_stride, work.x_stride}, Right<W>{weights, kOutputs},
             tile, kOutputs);
      for (int row = 0; row < rows; ++row) {
        float* from = tile + row * kOutputs;
        float* to = work.y + (begin + row) * work.y_stride + first;
        if (work.act == Act::Silu) {
          for (int i = 0; i < kOutputs; i += kLanes<float>) store(from + i, silu(load<float>(from + i)));
        } else if (work.act != Act::None) {
          for (int i = 0; i < columns; ++i) from[i] = activate(work.act, from[i]);
        }
        switch (work.into) {
          case Into::Add:
            for (int i = 0; i < columns; ++i) to[i] += from[i];
            break;
          case Into::Times:
            for (int i = 0; i < columns; ++i) to[i] *= from[i];
            break;
          default:
            for (int i = 0; i < columns; ++i) to[i] = from[i];
        }
      }
    }
  }
}

inline void linear(const Linear& work) {
  with_element(work.element, [&](auto stored) {
    linear_panels(work, static_cast<const typename decltype(stored)::type*>(work.panels));
  });
}

// Stored elements, every `stride`-th, as float32: a row of W out of its panels, or a norm.
inline void decode_strided(Element element, const void* from, int64_t stride, int64_t count, float* to) {
  with_element(element, [&](auto stored) {
    const auto* elements = static_cast<const typename decltype(stored)::type*>(from);
    for (int64_t i = 0; i < count; ++i) to[i] = decltype(stored)::decode(elements[i * stride]);
  });
}

// RMSNorm: x * weight / sqrt(mean(x^2) + epsilon). The sum is float64, lane by lane and then pairwise, in this order always.
inline void normalize(const float* x, const float* weight, int64_t width, double epsilon, float* y) {
  Doubles sum{};
  int64_t i = 0;
  for (; i + kLanes<double> <= width; i += kLanes<double>) {
    const Doubles values = load<double>(x + i);
    sum += values * values;
  }
  double total = reduce(sum, [](double a, double b) { return a + b; });
  for (; i < width; ++i) total += double(x[i]) * double(x[i]);
  const double factor = 1.0 / sqrt(total / double(width) + epsilon);
  for (i = 0; i < width; ++i) y[i] = float(double(x[i]) * factor) * weight[i];
}

}  // namespace infini::cpu::INFINI_SIMD_LEVEL

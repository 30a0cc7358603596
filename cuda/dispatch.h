// From run-time values to template arguments, in this one place.
//
// An instance is made for each element type, float32, bfloat16 and float16, and, where tiles are of a fixed width, for
// each bucket of dimensions, 64, 128 and 256: 9 of forward and of sums, 6 of retrieve (64 takes that of 128) and
// of decode (with and without rotary positions) and of linear (for few rows and for many), and 15 small ones.
#pragma once

#include <type_traits>

#include "kernels/elements.cuh"
#include "launch.h"

namespace infini::cuda {

// body(std::type_identity<T>) with the type of the stream's elements.
template <class Body> auto dispatch_element(Element element, Body body) {
  switch (element) {
    case Element::Float32: return body(std::type_identity<float>());
    case Element::BFloat16: return body(std::type_identity<bfloat16>());
    default: return body(std::type_identity<float16>());
  }
}

// body(std::type_identity<T>, std::integral_constant<int, kDim>) with the bucket that holds `dim`.
template <class Body> auto dispatch(Element element, int dim, Body body) {
  return dispatch_element(element, [&](auto type) {
    if (dim <= 64) return body(type, std::integral_constant<int, 64>());
    if (dim <= 128) return body(type, std::integral_constant<int, 128>());
    return body(type, std::integral_constant<int, 256>());
  });
}

}  // namespace infini::cuda

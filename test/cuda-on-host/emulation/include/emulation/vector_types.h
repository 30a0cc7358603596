// CUDA's small structs, with its alignments: a 16-byte load from a misaligned address is an error there and here.
#pragma once

#define INFINI_VECTOR_TYPES(name, type)                                       \
  struct alignas(2 * sizeof(type)) name##2 { type x, y; };                    \
  struct name##3 { type x, y, z; };                                           \
  struct alignas(4 * sizeof(type)) name##4 { type x, y, z, w; };              \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }            \
  inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; } \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
INFINI_VECTOR_TYPES(float, float)
INFINI_VECTOR_TYPES(int, int)
INFINI_VECTOR_TYPES(uint, unsigned)
#undef INFINI_VECTOR_TYPES

struct dim3 {
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  unsigned x, y, z;
};

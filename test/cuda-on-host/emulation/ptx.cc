// What each PTX instruction of cuda/ptx.cuh does.
#include "emulation/ptx.h"

#include <cmath>
#include <cstring>

#include "device_memory.h"
#include "emulation/half_conversions.h"
#include "machine.h"
#include "races.h"
#include "report.h"

namespace infini::emulation {

namespace {

// ---- mma

struct MmaOperands {
  float* d;
  const uint32_t *a, *b;
};

typedef float Row __attribute__((vector_size(32)));

// The sum of one element of D runs over k in order, in float32. (A GPU sums exact products of groups of k; how it cuts
// off is not specified.)
template <int K> void multiply(const float (&a)[16][K], const Row (&b)[K], Row (&d)[16]) {
  for (int half = 0; half < 16; half += 8) {
    Row sums[8];
    for (int i = 0; i < 8; ++i) sums[i] = d[half + i];
    for (int k = 0; k < K; ++k) {
      for (int i = 0; i < 8; ++i) sums[i] += a[half + i][k] * b[k];
    }
    for (int i = 0; i < 8; ++i) d[half + i] = sums[i];
  }
}

void gather(void** operands, Row (&d)[16]) {
  for (int lane = 0; lane < 32; ++lane) {
    const float* own = static_cast<MmaOperands*>(operands[lane])->d;
    for (int i = 0; i < 4; ++i) d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = own[i];
  }
}

void scatter(void** operands, const Row (&d)[16]) {
  for (int lane = 0; lane < 32; ++lane) {
    float* own = static_cast<MmaOperands*>(operands[lane])->d;
    for (int i = 0; i < 4; ++i) own[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}

template <float (*from_bits)(uint16_t)> void do_mma16(void** operands, uint32_t, const Location&) {
  float a[16][16];
  Row b[16], d[16];
  gather(operands, d);
  for (int lane = 0; lane < 32; ++lane) {
    const auto& own = *static_cast<MmaOperands*>(operands[lane]);
    const int g = lane / 4, t = lane % 4 * 2;
    for (int i = 0; i < 4; ++i) {
      a[g + i % 2 * 8][t + i / 2 * 8] = from_bits(uint16_t(own.a[i]));
      a[g + i % 2 * 8][t + i / 2 * 8 + 1] = from_bits(uint16_t(own.a[i] >> 16));
    }
    for (int i = 0; i < 2; ++i) {
      b[t + i * 8][g] = from_bits(uint16_t(own.b[i]));
      b[t + i * 8 + 1][g] = from_bits(uint16_t(own.b[i] >> 16));
    }
  }
  multiply(a, b, d);
  scatter(operands, d);
}

void do_mma_tf32(void** operands, uint32_t, const Location&) {
  const auto from_bits = [](uint32_t bits) { return std::bit_cast<float>(bits & 0xffffe000); };
  float a[16][8];
  Row b[8], d[16];
  gather(operands, d);
  for (int lane = 0; lane < 32; ++lane) {
    const auto& own = *static_cast<MmaOperands*>(operands[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) a[g + i % 2 * 8][t + i / 2 * 4] = from_bits(own.a[i]);
    for (int i = 0; i < 2; ++i) b[t + i * 4][g] = from_bits(own.b[i]);
  }
  multiply(a, b, d);
  scatter(operands, d);
}

// ---- ldmatrix

struct LoadOperands {
  uint32_t* r;
  uint32_t address;
};

template <bool kTranspose> void do_ldmatrix(void** operands, uint32_t, const Location& where) {
  const Warp& warp = *current_thread->warp;
  SharedRaces* races = warp.block->races.get();
  const Site site = races ? site_of(where) : 0;
  for (int matrix = 0; matrix < 4; ++matrix) {
    alignas(16) uint16_t rows[8][8], columns[8][8];
    unsigned banks = 0;  // groups of four that the eight rows fall in
    for (int row = 0; row < 8; ++row) {
      const int lane = matrix * 8 + row;
      const uint32_t address = static_cast<LoadOperands*>(operands[lane])->address;
      const unsigned char* bytes = shared_bytes(address, 16, "ldmatrix", where);
      if (races) {
        races->access(Access::Read, *warp.lanes[lane], address, 16, site);
        races->check_written(*warp.lanes[lane], address, 16, SharedRaces::Padding::None, site);
      }
      std::memcpy(rows[row], bytes, 16);
      banks |= 1u << address / 16 % 8;
    }
    machine.statistics.ldmatrix_phases += 1;
    machine.statistics.ldmatrix_conflicts += 8 - unsigned(__builtin_popcount(banks));
    for (int i = 0; i < 64; ++i) columns[i % 8][i / 8] = rows[i / 8][i % 8];
    for (int lane = 0; lane < 32; ++lane) {
      std::memcpy(&static_cast<LoadOperands*>(operands[lane])->r[matrix],
                  &(kTranspose ? columns : rows)[lane / 4][lane % 4 * 2], 4);
    }
  }
}

// ---- cp.async

void arrive(AsyncCopy& copy) {
  if (copy.arrived) return;
  copy.arrived = true;
  if (copy.bytes) std::memcpy(copy.to, copy.from, size_t(copy.bytes));
  std::memset(copy.to + copy.bytes, 0, size_t(16 - copy.bytes));
}

}  // namespace

}  // namespace infini::emulation

namespace infini::cuda::ptx {

using namespace infini::emulation;

uint32_t shared_address(const void* pointer, const Where& where) {
  const size_t offset = current_thread->block->arena->offset(pointer);
  if (!current_thread->block->arena->maps(offset)) fail("shared_address: not in this block's shared memory", where);
  return uint32_t(offset);
}

void cp_async16(uint32_t to, const void* from, int bytes, const Where& where) {
  Thread& self = *current_thread;
  Block& block = *self.block;
  self.activity = "cp.async";
  self.where = where;
  if (bytes < 0 || bytes > 16) fail("cp.async: " + std::to_string(bytes) + " bytes of 16", where);
  unsigned char* target = shared_bytes(to, 16, "cp.async", where);
  if (reinterpret_cast<uintptr_t>(from) % 16 && bytes) fail("cp.async: misaligned source", where);
  const Site site = block.races ? site_of(where) : 0;
  if (bytes) {
    if (!is_device_range(from, size_t(bytes))) check_device_range(from, size_t(bytes), "cp.async", site_of(where));
    if (block.races) global_races.access(Access::Read, self, from, size_t(bytes), site);
  }
  if (block.races) block.races->begin_copy(self, to, 16, site);
  self.copies.push_back({target, static_cast<const unsigned char*>(from), bytes, false, where});
  const bool now = settings.async == Async::Eager || (settings.async == Async::Random && machine.random() % 2 == 0);
  if (now) {
    arrive(self.copies.back());
  } else if (settings.poison) {
    std::memset(target, 0xFF, 16);
  }
}

void cp_async_commit() { current_thread->groups.push_back(current_thread->copies.size()); }

void cp_async_wait_group(int pending, const Where&) {
  Thread& self = *current_thread;
  const size_t groups = self.groups.size(), left = size_t(pending);
  if (groups <= left) return;
  const size_t done = self.groups[groups - 1 - left];
  SharedRaces* races = self.block->races.get();
  for (size_t i = 0; i < done; ++i) {
    AsyncCopy& copy = self.copies[i];
    arrive(copy);
    if (races) races->end_copy(self, self.block->arena->offset(copy.to), 16, site_of(copy.where));
  }
  self.copies.erase(self.copies.begin(), self.copies.begin() + ptrdiff_t(done));
  self.groups.erase(self.groups.begin(), self.groups.end() - ptrdiff_t(left));
  for (size_t& end : self.groups) end -= done;
}

void ldmatrix_x4(uint32_t (&r)[4], uint32_t address, const Where& where) {
  LoadOperands operands{r, address};
  collective(do_ldmatrix<false>, "ldmatrix", ~0u, &operands, Alignment::Aligned, where);
}

void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t address, const Where& where) {
  LoadOperands operands{r, address};
  collective(do_ldmatrix<true>, "ldmatrix.trans", ~0u, &operands, Alignment::Aligned, where);
}

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const Where& where) {
  MmaOperands operands{d, a, b};
  collective(do_mma16<from_bfloat16_bits>, "mma.bf16", ~0u, &operands, Alignment::Aligned, where);
}

void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const Where& where) {
  MmaOperands operands{d, a, b};
  collective(do_mma16<from_float16_bits>, "mma.f16", ~0u, &operands, Alignment::Aligned, where);
}

void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const Where& where) {
  MmaOperands operands{d, a, b};
  collective(do_mma_tf32, "mma.tf32", ~0u, &operands, Alignment::Aligned, where);
}

float exp2_approx(float x) {
  const auto flush = [](float value) { return std::fabs(value) < 0x1p-126f ? std::copysign(0.0f, value) : value; };
  return flush(std::exp2(flush(x)));
}

}  // namespace infini::cuda::ptx

// Online softmax of the rows of one warp, in the layout of accumulators.
//
// Logits are scores (q k^T) times a scale, in units of ln 2; weights are exp2(logit - top - kOffset). A row's top
// follows its largest logit, but only when that exceeds it by kSlack; kOffset keeps sums of 65536 weighted values in
// range. Nothing that is not finite is lost: NaN and +inf reach the weights, -inf stays in Rows::lowest.
#pragma once

#include <cmath>
#include <type_traits>

#include "kernels/retrieval.cuh"

namespace infini::cuda {

// Weights reach 2^(kSlack - kOffset).
template <class T> constexpr float kOffset = std::is_same_v<T, float16> ? -7.0f : 25.0f;
constexpr float kSlack = 8.0f;
// Logits beyond this are so coarse that rounding top + kOffset would weigh: the top is subtracted from the scores.
constexpr float kLarge = 0x1p20f;

// The scale of logits as a factor of q, a power of two so that q keeps its digits and q k^T its range, and a factor of
// q k^T. float16 has no such range to keep.
struct Scale {
  float query, score;
  float slack;  // kSlack in scores
};
template <class T> __device__ __forceinline__ Scale split_scale(float scale) {
  constexpr float kLog2E = 1.44269504f;
  float query = 1.0f, score = scale * kLog2E;
  if (!std::is_same_v<T, float16> && scale < 1.0f) {
    query = fmaxf(__uint_as_float(__float_as_uint(scale) & 0x7f800000u), 0x1p-64f);  // and q stays a normal number
    score = scale / query * kLog2E;
  }
  return {query, score, fminf(kSlack / score, 3e38f)};
}

// A lane's share of its rows: of strip s rows 16 s + lane / 4 (half 0) and 8 below (half 1).
template <int kStrips> struct Rows {
  float top[kStrips][2];     // score
  float mass[kStrips][2];    // sum of weights, of this lane's columns
  float lowest[kStrips][2];  // score, of this lane's columns
};

// Hides the keys after each row's position; ahead: the position of the first row less that of the first key.
template <int kStrips, int kColumns>
__device__ __forceinline__ void hide_future(float (&scores)[kStrips][kColumns][4], int ahead, Rows<kStrips>& rows) {
  const int lane = lane_id();
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int visible = ahead + 16 * strip + 8 * half + (lane >> 2) - 2 * (lane & 3);
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& score = scores[strip][n][2 * half + i];
          const bool hidden = 8 * n + i > visible;
          rows.lowest[strip][half] = fminf(rows.lowest[strip][half], hidden ? 0.0f : score);
          score = hidden ? -INFINITY : score;
        }
      }
    }
  }
}

template <int kStrips, int kColumns>
__device__ __forceinline__ void note_lowest(const float (&scores)[kStrips][kColumns][4], Rows<kStrips>& rows) {
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) rows.lowest[strip][i / 2] = fminf(rows.lowest[strip][i / 2], scores[strip][n][i]);
    }
  }
}

// Moves the tops that are exceeded, and with them what the rows have summed so far. most: the largest new score of each
// row among this lane's columns.
template <int kStrips, int kWidth>
__device__ __forceinline__ void raise_tops(float (&most)[kStrips][2], const Scale& scale, Rows<kStrips>& rows,
                                           float (&acc)[kStrips][kWidth][4]) {
  bool exceeds = false;
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int half = 0; half < 2; ++half) exceeds |= most[strip][half] > rows.top[strip][half] + scale.slack;
  }
  if (!__any_sync(~0u, exceeds)) return;
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float highest = across_row(most[strip][half], [](float a, float b) { return fmaxf(a, b); });
      float& top = rows.top[strip][half];
      const float before = top;
      if (highest > top + scale.slack) top = highest;
      const float factor = top == before ? 1.0f : ptx::exp2_approx((before - top) * scale.score);
      rows.mass[strip][half] *= factor;
#pragma unroll
      for (int n = 0; n < kWidth; ++n) {
        acc[strip][n][2 * half] *= factor;
        acc[strip][n][2 * half + 1] *= factor;
      }
    }
  }
}

// Scores become weights.
template <class T, int kStrips, int kColumns, int kWidth>
__device__ __forceinline__ void weigh_scores(float (&scores)[kStrips][kColumns][4], const Scale& scale,
                                             Rows<kStrips>& rows, float (&acc)[kStrips][kWidth][4]) {
  float most[kStrips][2];
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      most[strip][half] = -INFINITY;
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        most[strip][half] = fmaxf(most[strip][half], fmaxf(scores[strip][n][2 * half], scores[strip][n][2 * half + 1]));
      }
    }
  }
  raise_tops(most, scale, rows, acc);
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float top = rows.top[strip][half];
      float base = fmaf(top, scale.score, kOffset<T>);
      if (!(fabsf(base) < kLarge)) {
        base = kOffset<T>;
#pragma unroll
        for (int n = 0; n < kColumns; ++n) {
          scores[strip][n][2 * half] -= top;
          scores[strip][n][2 * half + 1] -= top;
        }
      }
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[strip][n][i] = ptx::exp2_approx(fmaf(scores[strip][n][i], scale.score, -base));
          rows.mass[strip][half] += scores[strip][n][i];
        }
      }
    }
  }
}

}  // namespace infini::cuda

import type { DType, Rule } from '../../index';

export interface Shape {
  heads: number;
  kvHeads: number;
  headDim: number;
  segment: number;
  dtype: DType;
  rule: Rule;
}

/**
 * Useful floating-point operations of one segment: a multiplication and an addition count two. Exponentials, divisions
 * and the masked half of the local attention count nothing.
 */
export function flopsPerSegment({ heads, kvHeads, headDim: d, segment: n, rule }: Shape): number {
  const local = 2 * n * (n + 1) * d; // QK^T and PV over the causal half
  const retrieval = 2 * n * d * d;
  const update = (rule === 'delta' ? 4 : 2) * n * d * d; // delta reads the memory before it adds
  return heads * (local + retrieval) + kvHeads * update;
}

export const bytesPerElement = (dtype: DType): number => (dtype === 'float32' ? 4 : 2);

/** q, k and v of a call together. A call should stay below 64 MB. */
const CALL_BYTES = 48e6;
const MOST_TOKENS = 8192;

/** A run is whole segments, cut into equal calls where a segment is too large for one. */
export function cut(shape: Shape): { tokens: number; calls: number } {
  const { heads, kvHeads, headDim, segment, dtype } = shape;
  const perToken = (heads + 2 * kvHeads) * headDim * bytesPerElement(dtype);
  const fitting = Math.min(MOST_TOKENS, Math.max(1, Math.floor(CALL_BYTES / perToken)));
  if (segment <= fitting) return { tokens: Math.floor(fitting / segment) * segment, calls: 1 };
  let calls = Math.ceil(segment / fitting);
  while (segment % calls !== 0) calls++;
  return { tokens: segment / calls, calls };
}

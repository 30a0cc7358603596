import type { DType, Rule } from '../../index';
import type { Case } from './contender';

export interface Shape {
  heads: number;
  kvHeads: number;
  headDim: number;
  segment: number;
  dtype: DType;
  rule: Rule;
}

/** 'prefill', 'step of 64' */
export const nameOf = ({ work, streams }: Case): string =>
  streams === undefined ? work : `${work} of ${streams}`;

/** Delta reads the memory before it adds to it. */
const flopsOfState = ({ kvHeads, headDim: d, segment: n, rule }: Shape) =>
  kvHeads * (rule === 'delta' ? 4 : 2) * n * d * d;

/**
 * Useful floating-point operations of one segment: a multiplication and an addition count two. Exponentials, divisions
 * and the masked half of the local attention count nothing.
 */
export function flopsPerSegment(shape: Shape): number {
  const { heads, headDim: d, segment: n } = shape;
  const local = 2 * n * (n + 1) * d; // QK^T and PV over the causal half
  const retrieval = 2 * n * d * d;
  return heads * (local + retrieval) + flopsOfState(shape);
}

export const flopsPerToken = (one: Case): number =>
  (one.work === 'state' ? flopsOfState(one) : flopsPerSegment(one)) / one.segment;

export const bytesPerElement = (dtype: DType): number => (dtype === 'float32' ? 4 : 2);

/** M and z */
const memoryBytes = ({ kvHeads, headDim: d }: Shape) => kvHeads * (d * d * 4 + d * 8);

const bytesOfKeysAndValues = (shape: Shape, tokens: number) =>
  tokens * shape.kvHeads * 2 * shape.headDim * bytesPerElement(shape.dtype);

/** What one decoded token must read, on average over a segment: M, z, and half a segment's keys and values. */
export const bytesPerDecodedToken = (shape: Shape): number =>
  memoryBytes(shape) + bytesOfKeysAndValues(shape, shape.segment / 2);

/** Of a segment's keys and values that become a part of M and z: what is read, and written. */
export const bytesPerStatePass = (shape: Shape): number =>
  bytesOfKeysAndValues(shape, shape.segment) + 2 * memoryBytes(shape);

/** What must come from memory or go there for a token: q, k, v and the output, and when decoding the whole state. */
export function bytesPerToken(one: Case): number {
  const { heads, kvHeads, headDim, segment, dtype, work } = one;
  if (work === 'state') return bytesPerStatePass(one) / segment;
  const passed = 2 * (heads + kvHeads) * headDim * bytesPerElement(dtype);
  return passed + (work === 'decode' || work === 'step' ? bytesPerDecodedToken(one) : 0);
}

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

import type { Device, MemoryStream, Tensor } from '../../index';
import { mix } from '../random';
import { encode } from './sixteen';
import type { Shape } from './work';

/** Tensors of some tokens: [tokens, heads, headDim], and with kvHeads for k and v. */
export interface Input {
  q: Tensor;
  k: Tensor;
  v: Tensor;
}

/** Uniform noise of unit variance. */
export function noise(length: number, seed: number): Float32Array {
  const values = new Float32Array(length);
  for (let i = 0; i < length; i++) values[i] = (mix(seed + i) / 2 ** 31 - 1) * Math.sqrt(3);
  return values;
}

export function makeInput({ heads, kvHeads, headDim, dtype }: Shape, tokens: number): Input {
  const make = (rows: number, seed: number) => encode(noise(tokens * rows * headDim, mix(seed)), dtype);
  return { q: make(heads, 1), k: make(kvHeads, 2), v: make(kvHeads, 3) };
}

/** A view of the tokens from `from` to `to`. */
export function slice(
  { q, k, v }: Input,
  { heads, kvHeads, headDim }: Shape,
  from: number,
  to: number,
): Input {
  const part = (tensor: Tensor, rows: number) => tensor.subarray(from * rows * headDim, to * rows * headDim);
  return { q: part(q, heads), k: part(k, kvHeads), v: part(v, kvHeads) };
}

export function open(device: Device, shape: Shape): MemoryStream {
  const { heads, kvHeads, headDim, segment: segmentLength, dtype, rule } = shape;
  return device.createStream({ heads, kvHeads, headDim, segmentLength, dtype, rule });
}

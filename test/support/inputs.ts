import type { ResolvedConfig } from '../../lib';
import type { Rng } from './rng';
import { type MadeTensor, makeTensor } from './tensors';

export type Shape = Pick<ResolvedConfig, 'heads' | 'kvHeads' | 'headDim' | 'valueDim' | 'dtype'>;

/** The q, k and v of some tokens: `data` for the stream, `values` for the reference. */
export interface MadeInput {
  tokens: number;
  q: MadeTensor;
  k: MadeTensor;
  v: MadeTensor;
}

/** Draws one number; `index` counts within a head's vector and `token` within the call. */
export type Draw = (rng: Rng, index: number, token: number) => number;

export const normal: Draw = (rng) => rng.normal();
export const constant =
  (x: number): Draw =>
  () =>
    x;
export const around =
  (center: number, spread = 1): Draw =>
  (rng) =>
    center + spread * rng.normal();

export interface Draws {
  q?: Draw;
  k?: Draw;
  v?: Draw;
}

export function makeInput(shape: Shape, tokens: number, rng: Rng, draws: Draws = {}): MadeInput {
  const { heads, kvHeads, headDim, valueDim, dtype } = shape;
  const make = (width: number, dim: number, draw: Draw = normal) => {
    const numbers = new Float64Array(tokens * width);
    for (let t = 0, at = 0; t < tokens; t++) {
      for (let i = 0; i < width; i++) numbers[at++] = draw(rng, i % dim, t);
    }
    return makeTensor(dtype, numbers);
  };
  return {
    tokens,
    q: make(heads * headDim, headDim, draws.q),
    k: make(kvHeads * headDim, headDim, draws.k),
    v: make(kvHeads * valueDim, valueDim, draws.v),
  };
}

/** What `attend` takes. */
export function dataOf({ q, k, v }: MadeInput) {
  return { q: q.data, k: k.data, v: v.data };
}

export function valuesOf({ q, k, v }: MadeInput) {
  return { q: q.values, k: k.values, v: v.values };
}

/** Tokens [from, to) of an input, as views. */
export function tokensOf(input: MadeInput, from: number, to: number): MadeInput {
  const cut = ({ data, values }: MadeTensor): MadeTensor => {
    const width = values.length / input.tokens;
    return {
      data: data.subarray(from * width, to * width),
      values: values.subarray(from * width, to * width),
    };
  };
  return { tokens: to - from, q: cut(input.q), k: cut(input.k), v: cut(input.v) };
}

/** An input cut into consecutive pieces. */
export function cut(input: MadeInput, sizes: readonly number[]): MadeInput[] {
  let from = 0;
  return sizes.map((size) => {
    from += size;
    return tokensOf(input, from - size, from);
  });
}

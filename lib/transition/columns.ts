import type { AttendInput } from '../calls';
import type { MemoryStream } from '../stream';
import { lengthOf, newTensor } from '../tensor';
import type { ResolvedConfig, Tensor } from '../types';
import { type Site, streamWith } from './restore';

const most = 256; // of a stream's values

/** Columns [from, to) of what a recorder's memory is made of, [B | A], and the stream that has them. */
export interface Columns {
  readonly from: number;
  readonly to: number;
  readonly stream: MemoryStream;
}

export function closeColumns(all: readonly Columns[]): void {
  for (const { stream } of all) stream.close();
}

/**
 * The memory [0 | I] in as many streams as it takes, after so many tokens with this z; without z, where A is the identity,
 * an empty memory for B alone.
 */
export function makeColumns(
  { config, ...place }: Site,
  tokens: number,
  normalizer: Float64Array | null,
): Columns[] {
  const { kvHeads, headDim, valueDim } = config;
  const all = valueDim + (normalizer ? headDim : 0);
  const borders = all <= most ? [0, all] : [0, valueDim, all];
  const made: Columns[] = [];
  try {
    for (const [i, to] of borders.slice(1).entries()) {
      const from = borders[i];
      const matrix = new Float32Array(kvHeads * headDim * (to - from));
      for (let row = 0; row < kvHeads * headDim; row++) {
        const one = valueDim + (row % headDim);
        if (one >= from && one < to) matrix[row * (to - from) + one - from] = 1;
      }
      const site = { ...place, config: innerConfig(config, to - from) };
      const z = normalizer ?? new Float64Array(kvHeads * headDim);
      made.push({ from, to, stream: streamWith(site, tokens, matrix, z) });
    }
    return made;
  } catch (error) {
    closeColumns(made);
    throw error;
  }
}

/** Of a stream that is there for its memory alone. */
const innerConfig = (config: ResolvedConfig, valueDim: number): ResolvedConfig => ({
  ...config,
  heads: config.kvHeads,
  valueDim,
  gate: Array<number>(config.kvHeads).fill(0),
  rope: null,
});

/** The keys, and these columns of the values [V | 0], in arrays of our own. Queries are zeros, which cost the least. */
export function inputOf(
  k: Tensor,
  v: Tensor,
  { from, to }: Columns,
  { valueDim, headDim, dtype }: ResolvedConfig,
): AttendInput {
  const keys = newTensor(dtype, lengthOf(k));
  keys.set(k);
  const width = to - from;
  const rows = lengthOf(k) / headDim;
  const values = newTensor(dtype, rows * width);
  const end = to < valueDim ? to : valueDim;
  for (let row = 0; row < rows; row++) {
    for (let j = from; j < end; j++) values[row * width + j - from] = v[row * valueDim + j];
  }
  return { q: newTensor(dtype, lengthOf(k)), k: keys, v: values };
}

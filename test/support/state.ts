import type { MemoryStream, Tensor } from '../../lib';
import { Rng } from './rng';
import { bytesOf, encode } from './tensors';

/** Everything that can be observed of a stream: its counters, its memory, and how it would continue. */
export interface StreamState {
  tokens: number;
  segments: number;
  byteLength: number;
  closed: boolean;
  matrix: string;
  normalizer: string;
  /** Output and memory of a fork that runs on to the end of the open segment and one token further. */
  continuation: string[];
}

export function stateOf(stream: MemoryStream): StreamState {
  const { matrix, normalizer } = stream.memory();
  return {
    tokens: stream.tokens,
    segments: stream.segments,
    byteLength: stream.byteLength,
    closed: stream.closed,
    matrix: hex(matrix),
    normalizer: hex(normalizer),
    continuation: continuationOf(stream),
  };
}

/** The probe attends to every cached key and value and absorbs them, so any change in the open segment shows. */
function continuationOf(stream: MemoryStream): string[] {
  const { heads, kvHeads, headDim, valueDim, segmentLength, dtype } = stream.config;
  const tokens = segmentLength - (stream.tokens % segmentLength) + 1;
  const rng = new Rng(4242);
  const probe = (length: number): Tensor =>
    encode(
      dtype,
      Float64Array.from({ length }, () => rng.uniform(-1, 1)),
    );
  const fork = stream.fork();
  try {
    const output = fork.attendSync({
      q: probe(tokens * heads * headDim),
      k: probe(tokens * kvHeads * headDim),
      v: probe(tokens * kvHeads * valueDim),
    });
    const { matrix, normalizer } = fork.memory();
    return [hex(output), hex(matrix), hex(normalizer)];
  } catch (error) {
    const { code, tensor, token } = error as { code?: string; tensor?: string; token?: number };
    return [`${code} ${tensor} ${token}`]; // a memory at the edge of overflow
  } finally {
    fork.close();
  }
}

function hex(array: ArrayBufferView): string {
  return bytesOf(array).toString('hex');
}

import type { MemoryStream } from '../../lib';
import { expectReject, expectThrow, type Failure } from './failures';
import { stateOf } from './state';
import { bytesOf } from './tensors';

type AnyCall = (input: unknown, options?: unknown) => unknown;

/**
 * The call fails by attendSync and by attend alike, or by retrieveSync and retrieve: with this failure, the stream
 * as it was, and `out`, when one is given, untouched.
 */
export async function expectRefused(
  stream: MemoryStream,
  method: 'attend' | 'retrieve',
  input: unknown,
  failure: Failure,
  options?: unknown,
): Promise<void> {
  const out = (options as { out?: unknown } | undefined)?.out;
  const outBytes = () => (ArrayBuffer.isView(out) ? Buffer.from(bytesOf(out)) : null);
  const before = { state: stateOf(stream), out: outBytes() };
  const sync = stream[`${method}Sync`].bind(stream) as AnyCall;
  const async = stream[method].bind(stream) as (input: unknown, options?: unknown) => Promise<unknown>;
  expectThrow(() => sync(input, options), failure);
  expect({ state: stateOf(stream), out: outBytes() }).toEqual(before);
  await expectReject(() => async(input, options), failure);
  expect({ state: stateOf(stream), out: outBytes() }).toEqual(before);
}

/** A stream with something absorbed and something open, so that a change of either shows. */
export function withHistory(stream: MemoryStream): MemoryStream {
  const { heads, kvHeads, headDim, valueDim, segmentLength, dtype } = stream.config;
  const tokens = segmentLength + Math.ceil(segmentLength / 2);
  const fill = (length: number) =>
    dtype === 'float32'
      ? Float32Array.from({ length }, (_, i) => Math.sin(i))
      : Uint16Array.from({ length }, (_, i) => 0x3c00 + (i % 100));
  stream.attendSync({
    q: fill(tokens * heads * headDim),
    k: fill(tokens * kvHeads * headDim),
    v: fill(tokens * kvHeads * valueDim),
  });
  return stream;
}

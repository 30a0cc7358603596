import type { Device, MemoryStream, StreamConfig } from '../../lib';
import { emulated, openTestDevice } from '../support/device';
import { dataOf, makeInput } from '../support/inputs';
import { Rng } from '../support/rng';

export const small: StreamConfig = { heads: 2, headDim: 8, segmentLength: 4 };
/** About 10 GFLOP for 2048 tokens: what is queued behind them in the same turn stays queued for a while. */
export const large: StreamConfig = emulated
  ? { heads: 2, headDim: 16, segmentLength: 64 }
  : { heads: 8, headDim: 128, segmentLength: 2048 };

/** 137 GFLOP for its 8192 tokens in little memory: long enough on any machine, however late a timer, to be met in the middle. */
export const huge: StreamConfig = emulated
  ? large
  : { heads: 8, kvHeads: 1, headDim: 128, segmentLength: 16_384 };
export const hugeTokens = emulated ? 2048 : 8192;

export function inputFor(stream: MemoryStream, tokens: number, seed = 1) {
  return dataOf(makeInput(stream.config, tokens, new Rng(seed)));
}

/** One random row for every token: quick to make where only the amount of work matters. */
export function bulkFor(stream: MemoryStream, tokens: number) {
  const { heads, kvHeads, headDim, valueDim } = stream.config;
  const rng = new Rng(7);
  const bulk = (width: number) => {
    const row = Float32Array.from({ length: width }, () => rng.normal());
    const rows = new Float32Array(width * tokens);
    for (let token = 0; token < tokens; token++) rows.set(row, token * width);
    return rows;
  };
  return { q: bulk(heads * headDim), k: bulk(kvHeads * headDim), v: bulk(kvHeads * valueDim) };
}

export async function withDevice(body: (device: Device) => Promise<void>): Promise<void> {
  const device = openTestDevice();
  try {
    await body(device);
  } finally {
    device.close();
  }
}

export const milliseconds = (start: bigint): number => Number(process.hrtime.bigint() - start) / 1e6;

/** What became of a promise: its value's class or its error's code. */
export const outcome = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'done',
    (error) => String(error.code),
  );

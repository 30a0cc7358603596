import type { Device } from '../../index';
import { median } from '../format';

/** What a call costs beside its work, in microseconds: medians on the smallest stream there is. */
export interface Binding {
  /** One token through attendSync. */
  sync: number;
  /** One token through attend, awaited. */
  async: number;
  /** One token for each of 64 streams through a prepared batch's step, awaited. */
  batchOf64: number;
}

const TIMES = 2000;
const WARM = 200;

async function medianOf(body: () => unknown): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < WARM + TIMES; i++) {
    const start = process.hrtime.bigint();
    const result = body();
    if (result instanceof Promise) await result;
    times.push(Number(process.hrtime.bigint() - start) / 1000);
  }
  return median(times.slice(WARM));
}

export async function measureBinding(device: Device, signal: AbortSignal): Promise<Binding> {
  const config = { heads: 1, headDim: 1, segmentLength: 64 };
  const ones = (count: number) => ({
    q: new Float32Array(count).fill(1),
    k: new Float32Array(count).fill(1),
    v: new Float32Array(count).fill(1),
  });
  using stream = device.createStream(config);
  const token = ones(1);
  const out = new Float32Array(1);
  const sync = await medianOf(() => stream.attendSync(token, { out }));
  signal.throwIfAborted();
  const round = await medianOf(() => stream.attend(token, { out }));
  signal.throwIfAborted();
  const streams = Array.from({ length: 64 }, () => device.createStream(config));
  try {
    using batch = device.createBatch(streams);
    const tokens = ones(64);
    const batchOf64 = await medianOf(() => batch.step(tokens));
    return { sync, async: round, batchOf64 };
  } finally {
    for (const one of streams) one.close();
  }
}

import { availableParallelism } from 'node:os';
import { openDevice, type StreamConfig } from '../../lib';
import { dataOf, makeInput } from '../support/inputs';
import { seededTest } from '../support/seeded';
import { bytesOf, DTYPES } from '../support/tensors';

/** The number of threads changes who computes, not what. */
const CONFIGS: StreamConfig[] = (['linear', 'delta'] as const).flatMap((rule) =>
  DTYPES.flatMap((dtype) => [
    {
      heads: 8,
      kvHeads: 2,
      headDim: 64,
      valueDim: 48,
      segmentLength: 128,
      rule,
      dtype,
      rope: { theta: 10_000 },
    },
    { heads: 1, headDim: 17, valueDim: 5, segmentLength: 37, rule, dtype },
  ]),
);

async function run(
  threads: number,
  config: StreamConfig,
  data: ReturnType<typeof dataOf>,
): Promise<Buffer[]> {
  const device = openDevice('cpu', { threads });
  try {
    const stream = device.createStream(config);
    const first = bytesOf(await stream.attend(data));
    const second = bytesOf(stream.attendSync(data));
    const read = bytesOf(await stream.retrieve({ q: data.q }));
    const { matrix, normalizer } = stream.memory();
    expect(stream.segments).toBeGreaterThan(4);
    return [first, second, read, bytesOf(matrix), bytesOf(normalizer)];
  } finally {
    device.close();
  }
}

describe.each(CONFIGS)('$rule in $dtype with headDim $headDim', (config) => {
  seededTest('gives the same bits with 1, 2, 3 and all threads', async (rng) => {
    const { heads, kvHeads = heads, headDim, valueDim = headDim, dtype = 'float32' } = config;
    const data = dataOf(makeInput({ heads, kvHeads, headDim, valueDim, dtype }, 400, rng));
    const alone = await run(1, config, data);
    expect(alone.map((bytes) => bytes.some((byte) => byte !== 0))).toEqual([true, true, true, true, true]);
    for (const threads of [2, 3, availableParallelism()]) {
      const together = await run(threads, config, data);
      expect(together.map((bytes, i) => bytes.equals(alone[i]))).toEqual([true, true, true, true, true]);
    }
  });
});

import type { Device, StreamConfig } from '../../lib';
import { openTestDevice } from '../support/device';
import { around, makeInput } from '../support/inputs';
import { Pair } from '../support/pair';
import { seededTest } from '../support/seeded';

/** Few, but as they are used: long segments, many tokens a call, many segments a call. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const CASES: { name: string; config: StreamConfig; calls: number[] }[] = [
  {
    name: 'the default configuration over two segments of 2048',
    config: { heads: 1, headDim: 64 },
    calls: [5000, 1, 100],
  },
  {
    name: 'one open segment of 4000 tokens',
    config: {
      heads: 1,
      headDim: 16,
      valueDim: 8,
      segmentLength: 65536,
      rope: { theta: 500_000 },
      emptyRead: 'local',
    },
    calls: [3900, 100],
  },
  {
    name: 'five hundred segments in one call',
    config: { heads: 2, kvHeads: 1, headDim: 8, segmentLength: 1, rule: 'linear' },
    calls: [500, 3],
  },
  {
    name: 'three hundred segments in one call, by the delta rule',
    config: { heads: 2, kvHeads: 1, headDim: 32, segmentLength: 7, rule: 'delta', gate: 2 },
    calls: [2103, 10],
  },
  {
    name: 'sixty-four heads in eight groups',
    config: {
      heads: 64,
      kvHeads: 8,
      headDim: 64,
      segmentLength: 32,
      dtype: 'bfloat16',
      rope: { theta: 10_000 },
    },
    calls: [100, 1],
  },
  {
    name: 'a thousand and twenty-four heads of one number',
    // By the delta rule a memory of one number may overshoot and cancel: among a thousand, one would.
    config: { heads: 1024, headDim: 1, segmentLength: 4, rule: 'linear' },
    calls: [17],
  },
];

for (const { name, config, calls } of CASES) {
  seededTest(`${name}: agrees with the reference`, async (rng) => {
    const pair = new Pair(device, config);
    const v = around(2); // the roundings of hundreds of segments should not meet values that cancel
    for (const tokens of calls) await pair.attend(makeInput(pair.stream.config, tokens, rng, { v }), 'async');
    await pair.retrieve(makeInput(pair.stream.config, 3, rng).q, 'async');
    pair.expectMemory();
    expect(pair.compared).toBe(calls.length + 2);
    pair.close();
  });
}

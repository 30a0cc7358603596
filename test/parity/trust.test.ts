import type { Device, StreamConfig } from '../../lib';
import { ReferenceStream } from '../reference/reference-stream';
import { errorsByHead } from '../support/accuracy';
import { onCuda, openTestDevice } from '../support/device';
import { around, makeInput } from '../support/inputs';
import { Pair } from '../support/pair';
import { seededTest } from '../support/seeded';

/** Numbers at which the CPU's float32 kernels would err, one by one: they must notice, or sum in another way. */
const onCpu = onCuda ? describe.skip : describe;

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const one: Omit<StreamConfig, 'segmentLength'> = { heads: 1, headDim: 1, scale: 1 };
const filled = (length: number, value: number) => new Float32Array(length).fill(value);

onCpu('float32 is not trusted with', () => {
  seededTest('scores whose terms cancel over many components', (rng) => {
    const headDim = 256;
    const stream = device.createStream({
      heads: 1,
      headDim,
      valueDim: 1,
      segmentLength: 4,
      emptyRead: 'local',
    });
    const reference = new ReferenceStream(stream.config);
    const near = (size: number) => Math.fround(size * rng.uniform(0.95, 1.05));
    const q = Float32Array.from({ length: 2 * headDim }, () => near(1.9));
    const k = Float32Array.from({ length: 2 * headDim }, (_, i) => near(i % headDim < 128 ? 1.9 : -1.9));
    const v = Float32Array.of(1, 0.25);
    const largest = (Math.hypot(...q.subarray(headDim)) * Math.hypot(...k.subarray(0, headDim))) / 16;
    expect(largest).toBeGreaterThan(50);
    expect(largest).toBeLessThan(63); // float32 does it
    const output = Float64Array.from(stream.attendSync({ q, k, v }));
    const wanted = reference.attend({
      q: Float64Array.from(q),
      k: Float64Array.from(k),
      v: Float64Array.from(v),
    }).output;
    const [error] = errorsByHead(output.subarray(1), wanted.subarray(1), 1, 1);
    expect(error).toBeLessThanOrEqual(1e-6 + 2e-7 * largest);
    stream.close();
  });

  test.each([512, 2048, 32768])('the sum over all blocks of a segment of %d', (segmentLength) => {
    for (const value of [1.7637746, 1.8357651, 1.1]) {
      const stream = device.createStream({ ...one, segmentLength, emptyRead: 'local' });
      const all = { q: filled(segmentLength - 1, 0), k: filled(segmentLength - 1, 0) };
      stream.attendSync({ ...all, v: filled(segmentLength - 1, value) });
      const last = stream.attendSync({ q: filled(1, 0), k: filled(1, 0), v: filled(1, value) });
      expect(Math.abs(last[0] / Math.fround(value) - 1)).toBeLessThan(1e-6); // the chain of a block of 64 alone makes 8e-7
      stream.close();
    }
  });

  test('a feature that is exactly 0, where much is stored', () => {
    for (const [first, value] of [
      [1e29, 1],
      [1, 1e38],
    ]) {
      const stream = device.createStream({
        heads: 1,
        headDim: 2,
        valueDim: 1,
        segmentLength: 2,
        rule: 'linear',
      });
      const k = Float32Array.of(first, -200, -200, 0);
      stream.attendSync({ q: filled(4, 0), k, v: Float32Array.of(value, -1) });
      expect(stream.segments).toBe(1);
      expect(stream.retrieveSync({ q: Float32Array.of(-100, -20) })[0]).toBeCloseTo(-1, 6);
      stream.close();
    }
  });

  test('a tiny weight of a huge value', () => {
    const stream = device.createStream({ ...one, segmentLength: 4, emptyRead: 'local' });
    const output = stream.attendSync({
      q: filled(2, 1),
      k: Float32Array.of(0, -75),
      v: Float32Array.of(1, 1e38),
    });
    expect(output[1] / (1 + Math.exp(-75) * 1e38)).toBeCloseTo(1, 5);
    stream.close();
  });

  test('a memory of tiny values, read where little is stored', () => {
    const stream = device.createStream({ heads: 1, headDim: 4, valueDim: 1, segmentLength: 1 });
    stream.attendSync({ q: filled(4, 0), k: filled(4, 0), v: filled(1, 1e-36) });
    const [read] = stream.retrieveSync({ q: filled(4, -20) });
    expect(read / Math.fround(1e-36)).toBeCloseTo(1, 6);
    stream.close();
  });

  seededTest('rows beside ordinary ones: both kinds are as they would be alone', (rng) => {
    const shape = { heads: 2, kvHeads: 1, headDim: 8, valueDim: 8, dtype: 'float32' as const };
    const stream = device.createStream({ ...shape, segmentLength: 10 });
    stream.attendSync(dataOf(10));
    const queries = dataOf(40).q;
    for (const row of [3, 4, 9, 39]) queries.fill(-60, row * 16, row * 16 + 16);
    const together = stream.retrieveSync({ q: queries });
    for (let t = 0; t < 40; t++) {
      const alone = stream.retrieveSync({ q: queries.subarray(t * 16, t * 16 + 16) });
      expect(together.subarray(t * 16, t * 16 + 16)).toEqual(alone);
    }
    stream.close();

    function dataOf(tokens: number) {
      const { q, k, v } = makeInput(shape, tokens, rng);
      return { q: q.data as Float32Array, k: k.data as Float32Array, v: v.data as Float32Array };
    }
  });

  // Subnormal numbers are zero to a tile of AMX, and so are products that would be.
  describe.each([1e-39, 1e-34, 1e-24, 1e-10, 1, 1e25])('bfloat16 values around %p', (size) => {
    // Else M, which is float32, would be nothing.
    for (const center of [-60, -30, -8, 0, 40].filter((x) => size * Math.exp(Math.min(x, 0)) >= 1e-39)) {
      seededTest(`under keys around ${center}`, async (rng) => {
        const shape = { heads: 2, kvHeads: 1, headDim: 24, valueDim: 40, segmentLength: 33 };
        const pair = new Pair(device, { ...shape, dtype: 'bfloat16', scale: 0.01 });
        const draws = { k: around(center), v: () => size * rng.normal() };
        for (const q of [center, 0, -20]) {
          await pair.attend(makeInput(pair.stream.config, 50, rng, { ...draws, q: around(q) }), 'sync');
        }
        await pair.retrieve(makeInput(pair.stream.config, 20, rng).q, 'sync');
        pair.expectMemory();
        expect(pair.compared).toBe(5);
        pair.close();
      });
    }
  });
});

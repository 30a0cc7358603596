import type { Device, StreamConfig } from '../../lib';
import { openTestDevice } from '../support/device';
import { constant, dataOf, makeInput } from '../support/inputs';
import { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { bytesOf, DTYPES } from '../support/tensors';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const N = 48;
/** Gates that let local attention through alone. */
const config: StreamConfig = {
  heads: 2,
  headDim: 32,
  segmentLength: N,
  rope: { theta: 10_000 },
  gate: -1000,
};

test.each(DTYPES)(
  'positions restart in each segment: the same %s tokens give the same bits in any segment',
  (dtype) => {
    const stream = device.createStream({ ...config, dtype });
    const zeros = dataOf(
      makeInput(stream.config, N, new Rng(0), { q: constant(0), k: constant(0), v: constant(0) }),
    );
    const ramp = dataOf(
      makeInput(stream.config, N, new Rng(0), {
        q: (_, i, t) => Math.sin(i + t),
        k: (_, i, t) => Math.cos(i * t),
        v: (_, i, t) => i - t,
      }),
    );
    const first = bytesOf(stream.attendSync(ramp));
    for (let i = 0; i < 100; i++) stream.attendSync(zeros);
    expect(stream.tokens).toBe(101 * N);
    expect(bytesOf(stream.attendSync(ramp)).equals(first)).toBe(true);
    stream.close();
  },
);

seededTest('the memory sees keys and queries unrotated', (rng) => {
  const [rotated, plain] = [device.createStream(config), device.createStream({ ...config, rope: null })];
  const input = makeInput(plain.config, 5 * N + 7, rng);
  const local = [rotated, plain].map((stream) => bytesOf(stream.attendSync(dataOf(input))));
  expect(local[0].equals(local[1])).toBe(false);
  expect(rotated.memory()).toEqual(plain.memory());
  const { q } = makeInput(plain.config, 20, rng);
  expect(rotated.retrieveSync({ q: q.data })).toEqual(plain.retrieveSync({ q: q.data }));
  expect(rotated.segments).toBe(5);
  rotated.close();
  plain.close();
});

test('a rotation by one and the same angle leaves products alone: local attention depends on distances', () => {
  // headDim 2, theta any: the pair turns by the position itself. Keys and queries are all (1, 0).
  const stream = device.createStream({
    heads: 1,
    headDim: 2,
    segmentLength: 8,
    scale: 1,
    rope: { theta: 7 },
    gate: -1000,
  });
  const ones = Float32Array.from({ length: 16 }, (_, i) => 1 - (i % 2));
  const v = Float32Array.from({ length: 16 }, (_, i) => (i % 2 === 0 ? 2 ** (i / 2) : 1));
  const output = stream.attendSync({ q: ones, k: ones, v });
  for (let t = 0; t < 8; t++) {
    const weights = Array.from({ length: t + 1 }, (_, p) => Math.exp(Math.cos(t - p)));
    const sum = weights.reduce((a, b) => a + b);
    const wanted = weights.reduce((a, weight, p) => a + (weight / sum) * 2 ** p, 0);
    expect(output[2 * t] / wanted).toBeCloseTo(1, 6);
    expect(output[2 * t + 1]).toBeCloseTo(1, 6);
  }
  stream.close();
});

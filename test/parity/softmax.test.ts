import type { Device } from '../../lib';
import { onCuda, openTestDevice } from '../support/device';
import { cut, type Draw, dataOf, makeInput } from '../support/inputs';
import { Pair } from '../support/pair';
import { seededTest } from '../support/seeded';

/**
 * Where |q| |k| scale is small the CPU's softmax looks for no largest score, and where it grows in the middle of a segment,
 * it begins to. Weights are then far from 1, and so may be their products with values.
 */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const onCpu = onCuda ? describe.skip : describe;
const shape = { heads: 2, kvHeads: 1, headDim: 16, valueDim: 24 };
const segmentLength = 400;
const tokens = 399;

onCpu.each([1e-36, 1e-30, 1, 1e36])('values around %p', (size) => {
  // |q| = |k| = 4.6 makes logits of +-21 where they are parallel.
  for (const [name, q, k] of [
    ['high', 1.15, 1.15],
    ['low', 1.15, -1.15],
    ['small', 1, 0.01],
  ] as const) {
    seededTest(`under ${name} logits`, async (rng) => {
      const pair = new Pair(device, { ...shape, segmentLength, scale: 1, emptyRead: 'local' });
      const near =
        (center: number): Draw =>
        () =>
          center * rng.uniform(0.97, 1.03);
      const draws = { q: near(q), k: near(k), v: () => size * rng.normal() };
      await pair.attend(makeInput(pair.stream.config, tokens, rng, draws), 'sync');
      expect(pair.compared).toBe(1);
      pair.close();
    });
  }
});

onCpu('keys that grow in the middle of a segment', () => {
  for (const round of [1, 2, 3, 4]) {
    seededTest(`give the same however the call is cut (${round})`, async (rng) => {
      const config = { ...shape, segmentLength, scale: 1 };
      const pair = new Pair(device, config);
      const border = rng.int(1, tokens - 1);
      // Logits of 6 at most before the border, of 60 after it; for one head of the two only sometimes.
      const k: Draw = (_, __, token) => (token < border ? 0.4 : rng.uniform(1, 4)) * rng.normal();
      const input = makeInput(pair.stream.config, tokens, rng, { q: () => 0.9 * rng.normal(), k });
      const whole = await pair.attend(input, 'async');
      const stream = device.createStream(config);
      let at = 0;
      for (const piece of cut(input, rng.pieces(tokens, 70))) {
        const output = stream.attendSync(dataOf(piece));
        expect(output).toEqual(whole.subarray(at, at + output.length));
        at += output.length;
      }
      expect(at).toBe(whole.length);
      stream.close();
      pair.close();
    });
  }
});

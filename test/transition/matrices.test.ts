import type { Device, Transition } from '../../lib';
import { multiply, referenceTransition } from '../reference/transition';
import { errorsByHead } from '../support/accuracy';
import { openTestDevice } from '../support/device';
import { type MadeInput, makeInput } from '../support/inputs';
import { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { DTYPES } from '../support/tensors';
import { allowed, record } from './text';

/** A, B and the sum of sigma(k) themselves, against float64. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

/** One head of [tokens, heads, dim]. */
const headOf = (values: Float64Array, heads: number, dim: number, head: number): Float64Array =>
  values.filter((_, i) => Math.floor(i / dim) % heads === head);

function expectRight(transition: Transition, part: MadeInput, before: Float64Array, most: number): void {
  const { kvHeads, headDim: dk, valueDim: dv, segmentLength, rule } = transition;
  for (let head = 0; head < kvHeads; head++) {
    const wanted = referenceTransition({
      rule,
      dk,
      dv,
      segmentLength,
      k: headOf(part.k.values, kvHeads, dk, head),
      v: headOf(part.v.values, kvHeads, dv, head),
      before: before.slice(head * dk, (head + 1) * dk),
    });
    const error = (actual: ArrayLike<number>, sought: Float64Array) =>
      errorsByHead(
        Float64Array.from(actual).slice(head * sought.length, (head + 1) * sought.length),
        sought,
        1,
        sought.length,
      )[0];
    expect(error(transition.B, wanted.B)).toBeLessThan(most);
    expect(error(transition.normalizer, wanted.normalizer)).toBeLessThan(most);
    if (before.some((sum) => sum > 0) && rule === 'delta')
      expect(error(transition.A as Float32Array, wanted.A)).toBeLessThan(most);
    else expect(transition.A).toBeNull();
  }
}

const shape = { heads: 4, kvHeads: 2, headDim: 7, valueDim: 5, segmentLength: 6, rule: 'delta' } as const;

for (const dtype of DTYPES) {
  seededTest(`of five segments after a known z, in ${dtype}`, async (rng) => {
    const part = makeInput({ ...shape, dtype }, 30, rng);
    const before = Float64Array.from({ length: 14 }, () => rng.uniform(5, 20));
    const delta = await record(device, { ...shape, dtype }, part, before);
    expect(delta.before).toEqual(before);
    expectRight(delta, part, before, allowed(dtype));
    const linear = await record(device, { ...shape, dtype, rule: 'linear' }, part, before);
    expect(linear.before).toBeNull();
    expectRight(linear, part, before, allowed(dtype));
  });
}

seededTest("of a text's beginning, where there is nothing to read", async (rng) => {
  const part = makeInput({ ...shape, dtype: 'float32' }, 18, rng);
  const zeros = new Float64Array(14);
  const transition = await record(device, shape, part);
  expect(transition.before).toEqual(zeros);
  expectRight(transition, part, zeros, allowed('float32'));
  expect(await record(device, shape, part, zeros)).toEqual(transition);
  const stream = device.createStream(shape);
  stream.attendSync({ q: new Float32Array(18 * 4 * 7), k: part.k.data, v: part.v.data });
  expect(stream.exportTransition()).toEqual(transition);
});

seededTest('where a stream has not the columns for A and B together', async (rng) => {
  const wide = { heads: 1, headDim: 200, valueDim: 64, segmentLength: 2, rule: 'delta' } as const;
  const part = makeInput({ ...wide, kvHeads: 1, dtype: 'float32' }, 6, rng);
  const before = Float64Array.from({ length: 200 }, () => rng.uniform(5, 20));
  expectRight(await record(device, wide, part, before), part, before, allowed('float32'));
});

test('A contracts: what the memory holds fades, as every segment adds less than there was', async () => {
  const rng = new Rng(7);
  const part = makeInput({ ...shape, dtype: 'float32' }, 60, rng);
  const first = await record(device, shape, part);
  const { A } = await record(device, shape, part, first.normalizer);
  for (let head = 0; head < 2; head++) {
    const matrix = Float64Array.from((A as Float32Array).subarray(head * 49, head * 49 + 49));
    for (let trial = 0; trial < 50; trial++) {
      const x = Float64Array.from({ length: 7 }, () => rng.normal());
      expect(Math.hypot(...multiply(matrix, x, 7, 1))).toBeLessThan(Math.hypot(...x));
    }
  }
});

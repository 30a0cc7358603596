import type { Device, MemoryStream, StreamConfig } from '../../lib';
import { onCuda, openTestDevice } from '../support/device';
import { expectReject, expectThrow } from '../support/failures';
import { stateOf } from '../support/state';
import { decode, encode, poisoned } from '../support/tensors';

/** Finite inputs whose results leave the range: the call fails, names the place, and leaves no trace. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

type Rows = { q: number[]; k: number[]; v: number[] };

const one: Omit<StreamConfig, 'segmentLength'> = { heads: 1, headDim: 1, scale: 1 };

function tensorsOf(stream: MemoryStream, { q, k, v }: Rows) {
  const { dtype } = stream.config;
  return { q: encode(dtype, q), k: encode(dtype, k), v: encode(dtype, v) };
}

/** `fails` must fail at the given place by attend and by attendSync, and change neither state nor out. */
async function expectOverflow(
  config: StreamConfig,
  before: Rows | null,
  fails: Rows,
  place: { tensor: string; token: number },
): Promise<void> {
  const stream = device.createStream(config);
  if (before) stream.attendSync(tensorsOf(stream, before));
  const state = stateOf(stream);
  const input = tensorsOf(stream, fails);
  const out = poisoned(stream.config.dtype, fails.q.length * stream.config.valueDim);
  const untouched = out.slice();
  const expected = { code: 'ERR_NON_FINITE', ...place };
  expectThrow(() => stream.attendSync(input, { out }), expected);
  await expectReject(() => stream.attend(input, { out }), expected);
  expect(out).toEqual(untouched);
  expect(stateOf(stream)).toEqual(state);
  stream.close();
}

function outputs(config: StreamConfig, input: Rows): number[] {
  const stream = device.createStream(config);
  const output = [...stream.attendSync(tensorsOf(stream, input))];
  stream.close();
  return output;
}

const zeros = (count: number) => new Array<number>(count).fill(0);
const at = (count: number, index: number, value: number) =>
  zeros(count).map((_, i) => (i === index ? value : 0));

describe('a logit', () => {
  const config = { ...one, segmentLength: 100 };

  test('beyond the range of float32 fails at the query that meets it', async () => {
    const input = { q: at(9, 6, 1e20), k: at(9, 4, 1e20), v: zeros(9) };
    await expectOverflow(config, null, input, { tensor: 'output', token: 6 });
    const negative = { ...input, k: at(9, 4, -1e20) };
    await expectOverflow(config, null, negative, { tensor: 'output', token: 6 });
  });

  test('fails at the largest inputs too', async () => {
    await expectOverflow(config, null, { q: [3e38], k: [3e38], v: [1] }, { tensor: 'output', token: 0 });
    await expectOverflow(
      { ...config, dtype: 'bfloat16' },
      null,
      { q: [3e38], k: [3e38], v: [1] },
      { tensor: 'output', token: 0 },
    );
  });

  test('with a key of an earlier call fails as well', async () => {
    const before = { q: [0, 0], k: [0, 1e20], v: [1, 2] };
    await expectOverflow(
      config,
      before,
      { q: [0, 1e20], k: [0, 0], v: [3, 4] },
      { tensor: 'output', token: 1 },
    );
  });

  test('is not formed with later keys, nor with keys of other segments', () => {
    const later = outputs(
      { ...config, emptyRead: 'local' },
      { q: at(9, 4, 1e20), k: at(9, 6, 1e20), v: zeros(9).fill(2) },
    );
    expect(later.length).toBe(9);
    for (const x of later) expect(x).toBeCloseTo(2, 5);
    const segments = { ...config, segmentLength: 2, gate: -1000, rule: 'linear' as const };
    const other = outputs(segments, { q: [0, 0, 1e20], k: [1e20, 0, 0], v: [5, 5, 5] });
    expect(other.length).toBe(3);
    for (const x of other) expect(x).toBeCloseTo(5, 5);
  });

  test('just inside the range is an ordinary logit', () => {
    // On CUDA logits are in units of ln 2: the range ends at 2.3e38.
    const largest = onCuda ? 2.3e19 : 3e19;
    const input = { q: [0, 1e19], k: [largest, 1e19], v: [7, 9] };
    const output = outputs({ ...config, emptyRead: 'local' }, input);
    expect(output).toEqual([7, 7]);
  });
});

describe('the memory', () => {
  test('fails at the token that completes the segment', async () => {
    const config = { ...one, segmentLength: 2 };
    const place = { tensor: 'memory', token: 1 };
    await expectOverflow(config, null, { q: [0, 0, 0], k: [0, 0, 0], v: [3e38, 3e38, 0] }, place);
    // sigma(1e38) is 1e38, and 4e38 is too large.
    await expectOverflow(config, null, { q: [0, 0], k: [1e38, 0], v: [4, 0] }, place);
    // The second segment of the call, and the sum of two calls.
    const later = { q: zeros(4), k: zeros(4), v: [1, 1, 3e38, 3e38] };
    await expectOverflow({ ...config, rule: 'linear' }, null, later, { tensor: 'memory', token: 3 });
    const before = { q: zeros(3), k: zeros(3), v: [3e38, 1, 3e38] };
    await expectOverflow(
      { ...config, rule: 'linear' },
      before,
      { q: [0], k: [0], v: [1] },
      { tensor: 'memory', token: 0 },
    );
  });

  test('fails where the delta correction leaves the range', async () => {
    // z = 1, then a key ten times as strong subtracts twenty times the value: M = -19 * 3e38.
    const config = { ...one, segmentLength: 1, rule: 'delta' as const };
    const before = { q: [0], k: [0], v: [3e38] };
    await expectOverflow(config, before, { q: [0], k: [9], v: [-3e38] }, { tensor: 'memory', token: 0 });
  });

  test('holds values of 3e38 under small keys, whatever is subtracted on the way', () => {
    const stream = device.createStream({ ...one, segmentLength: 1, rule: 'delta' });
    // The residual v - read is -6e38; sigma(k) times it is not large.
    stream.attendSync({ q: Float32Array.of(0), k: Float32Array.of(-5), v: Float32Array.of(3e38) });
    stream.attendSync({ q: Float32Array.of(0), k: Float32Array.of(-5), v: Float32Array.of(-3e38) });
    const matrix = stream.memory().matrix[0];
    expect(matrix / (-Math.exp(-5) * 3e38)).toBeCloseTo(1, 5);
    stream.close();
  });
});

describe('the output', () => {
  // As above: after v and a tenfold -v the delta memory reads -19/11 v.
  const history = (value: number, keys: [number, number]) => ({ q: [0, 0], k: keys, v: [value, -value] });

  test.each([
    { dtype: 'float16' as const, value: 65504, keys: [0, 9] as [number, number] },
    { dtype: 'bfloat16' as const, value: 3e38, keys: [-5, -2.7] as [number, number] },
    { dtype: 'float32' as const, value: 3e38, keys: [-5, -2.7] as [number, number] },
  ])('of $dtype fails where the memory reads more than it holds', async ({ dtype, value, keys }) => {
    const config = { ...one, segmentLength: 1, rule: 'delta' as const, dtype, gate: 30 };
    const before = history(value, keys);
    await expectOverflow(
      config,
      before,
      { q: [0, 0], k: [-80, 0], v: [0, 0] },
      { tensor: 'output', token: 0 },
    );

    const stream = device.createStream(config);
    stream.attendSync(tensorsOf(stream, before));
    const state = stateOf(stream);
    const expected = { code: 'ERR_NON_FINITE', tensor: 'output', token: 1 };
    const q = encode(dtype, [-100, 0]); // the first reads nothing
    expectThrow(() => stream.retrieveSync({ q }), expected);
    await expectReject(() => stream.retrieve({ q }), expected);
    expect(stateOf(stream)).toEqual(state);
    stream.close();
  });

  test.each([
    ['float32', 3e38],
    ['bfloat16', 3e38],
    ['float16', 65504],
  ] as const)('of %s holds the mean of values of %f', (dtype, value) => {
    const count = 300;
    const config = { ...one, segmentLength: 1000, dtype, emptyRead: 'local' as const };
    const stream = device.createStream(config);
    const input = tensorsOf(stream, { q: zeros(count), k: zeros(count), v: zeros(count).fill(value) });
    const output = stream.attendSync(input);
    expect(output.length).toBe(count);
    if (dtype === 'float32') {
      const far = output.filter((x: number) => !(Math.abs(x / value - 1) < 1e-6));
      expect([...far]).toEqual([]);
    } else {
      expect(output).toEqual(input.v);
    }
    stream.close();
  });

  test.each([
    ['float32', 3e38],
    ['bfloat16', 3e38],
    ['float16', 65504],
  ] as const)('of %s retrieves values of %f from a memory that can hold them', (dtype, value) => {
    const config = { ...one, segmentLength: 4, dtype, rule: 'linear' as const };
    const stream = device.createStream(config);
    stream.attendSync(tensorsOf(stream, { q: zeros(8), k: zeros(8).fill(-6), v: zeros(8).fill(value) }));
    expect(stream.segments).toBe(2);
    const q = encode(dtype, [0, 20, -80]);
    const read = stream.retrieveSync({ q });
    if (dtype === 'float32') for (const x of read) expect(x / value).toBeCloseTo(1, 6);
    else if (onCuda) for (const x of decode(dtype, read)) expect(Math.abs(x / value - 1)).toBeLessThan(5e-3);
    else expect(read).toEqual(encode(dtype, [value, value, value]));
    stream.close();
  });
});

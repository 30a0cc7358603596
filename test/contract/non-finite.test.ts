import type { Device, DType, Tensor } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectRefused, withHistory } from '../support/refusals';
import { sizes } from '../support/sizes';
import { poisoned } from '../support/tensors';

/** NaN and Infinity never enter a stream. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const shape = { heads: 4, kvHeads: 2, headDim: 3, valueDim: 5, segmentLength: 4 };
const width = { q: 12, k: 6, v: 10 };
type Name = keyof typeof width;

const BAD: Record<DType, number[]> = {
  float32: [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
  // Patterns: quiet and signalling NaN of both signs, both infinities.
  float16: [0x7e00, 0x7c01, 0xfe00, 0xffff, 0x7c00, 0xfc00],
  bfloat16: [0x7fc0, 0x7f81, 0xffc0, 0xffff, 0x7f80, 0xff80],
};
const LARGEST: Record<DType, number> = { float32: 3.4028234663852886e38, float16: 0x7bff, bfloat16: 0x7f7f };

const zeros = (dtype: DType, length: number): Tensor =>
  dtype === 'float32' ? new Float32Array(length) : new Uint16Array(length);
const inputs = (dtype: DType, tokens: number) => ({
  q: zeros(dtype, tokens * width.q),
  k: zeros(dtype, tokens * width.k),
  v: zeros(dtype, tokens * width.v),
});

describe.each(['float32', 'float16', 'bfloat16'] as const)('in a %s stream', (dtype) => {
  const newStream = () => withHistory(device.createStream({ ...shape, dtype }));

  test.each(['q', 'k', 'v'] as const)('every kind of NaN and Infinity in %s is refused', async (name) => {
    const stream = newStream();
    let refused = 0;
    for (const bad of BAD[dtype]) {
      for (const token of [0, 5, 8]) {
        const input = inputs(dtype, 9);
        input[name][token * width[name] + (token % width[name])] = bad;
        const failure = { code: 'ERR_NON_FINITE', tensor: name, token, says: [name, String(token)] };
        const options = { out: poisoned(dtype, 9 * 20) };
        await expectRefused(stream, 'attend', input, failure, options);
        if (name === 'q') await expectRefused(stream, 'retrieve', { q: input.q }, failure, options);
        refused++;
      }
    }
    expect(refused).toBe(3 * BAD[dtype].length);
    stream.close();
  });

  test('the largest finite number is no Infinity', () => {
    const stream = device.createStream({ ...shape, dtype, segmentLength: 64 });
    const input = inputs(dtype, 2);
    input.v.fill(LARGEST[dtype]);
    expect(stream.attendSync(input).length).toBe(40);
    expect(stream.tokens).toBe(2);
    stream.close();
  });

  test('the smallest token is named, then q before k before v', async () => {
    const stream = newStream();
    const [bad] = BAD[dtype];
    const cases: { at: Partial<Record<Name, number>>; tensor: Name; token: number }[] = [
      { at: { q: 3, k: 3, v: 3 }, tensor: 'q', token: 3 },
      { at: { k: 3, v: 3 }, tensor: 'k', token: 3 },
      { at: { q: 4, k: 3, v: 3 }, tensor: 'k', token: 3 },
      { at: { q: 4, k: 4, v: 3 }, tensor: 'v', token: 3 },
      { at: { q: 8, k: 0, v: 1 }, tensor: 'k', token: 0 },
      { at: { q: 1, v: 0 }, tensor: 'v', token: 0 },
    ];
    for (const { at, tensor, token } of cases) {
      const input = inputs(dtype, 9);
      for (const [name, row] of Object.entries(at) as [Name, number][]) {
        input[name][(row + 1) * width[name] - 1] = bad; // the last element of the token
        if (row < 8) input[name][8 * width[name]] = bad; // and another one later
      }
      await expectRefused(stream, 'attend', input, { code: 'ERR_NON_FINITE', tensor, token });
    }
    stream.close();
  });
});

test('each element of a long call is looked at', () => {
  const stream = device.createStream({ heads: 1, headDim: 1, segmentLength: 4096 });
  const tokens = sizes.spoiledTokens;
  const zero = new Float32Array(tokens);
  let refused = 0;
  for (let token = 0; token < tokens; token++) {
    const k = new Float32Array(tokens);
    k[token] = Number.NaN;
    try {
      stream.attendSync({ q: zero, k, v: zero });
    } catch (error) {
      const { code, tensor, token: found } = error as { code?: string; tensor?: string; token?: number };
      if (code === 'ERR_NON_FINITE' && tensor === 'k' && found === token) refused++;
    }
  }
  expect(refused).toBe(tokens);
  expect(stream.tokens).toBe(0);
  stream.close();
});

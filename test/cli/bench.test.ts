import { decode, encode } from '../../lib/cli/bench/sixteen';
import { cut, flopsPerSegment, type Shape } from '../../lib/cli/bench/work';
import { BFLOAT16, decodeHalf, encodeHalf, FLOAT16 } from '../reference/half';

const shape: Shape = { heads: 8, kvHeads: 8, headDim: 64, segment: 512, dtype: 'float32', rule: 'delta' };

test('operations of a segment, counted by hand for two tokens', () => {
  // Local: 3 pairs, each 2 (multiply, add) x 2 (QK, PV) x 5 = 60. Retrieval: 2 tokens x 2 x 25 = 100, an update the
  // same, and delta reads once more.
  const small: Shape = { ...shape, heads: 1, kvHeads: 1, headDim: 5, segment: 2 };
  expect(flopsPerSegment({ ...small, rule: 'linear' })).toBe(60 + 100 + 100);
  expect(flopsPerSegment(small)).toBe(60 + 100 + 200);
  expect(flopsPerSegment({ ...small, heads: 6, kvHeads: 2 })).toBe(6 * 160 + 2 * 200);
});

test('a run is whole segments in calls below 64 MB', () => {
  for (const heads of [1, 8, 64]) {
    for (const segment of [1, 7, 512, 2048, 65536]) {
      const large = { ...shape, heads, kvHeads: heads, segment };
      const { tokens, calls } = cut(large);
      expect((tokens * calls) % segment).toBe(0);
      expect(tokens * 3 * heads * 64 * 4).toBeLessThan(64e6);
    }
  }
});

test.each([
  ['bfloat16', BFLOAT16],
  ['float16', FLOAT16],
] as const)('%s patterns round as the reference does', (dtype, format) => {
  const values = new Float32Array(20_000);
  for (let i = 0; i < values.length; i++) values[i] = (Math.random() - 0.5) * 2 ** ((i % 40) - 28);
  values.set([
    0,
    -0,
    1,
    -1,
    2 ** -14,
    2 ** -24,
    2 ** -25,
    1.5 * 2 ** -25,
    1 + 2 ** -8,
    1 + 3 * 2 ** -8,
    1 + 2 ** -11,
  ]);
  const expected = Uint16Array.from(values, (value) => encodeHalf(value, format));
  const encoded = encode(values, dtype);
  expect(Buffer.compare(Buffer.from(encoded.buffer), Buffer.from(expected.buffer))).toBe(0);
  const numbers = Float32Array.from(expected, (bits) => decodeHalf(bits, format));
  expect(Buffer.compare(Buffer.from(decode(encoded, dtype).buffer), Buffer.from(numbers.buffer))).toBe(0);
});

import { allowedErrors, errorsByHead, expectAccurate } from './accuracy';
import { encode, rounded } from './tensors';

const wanted = Float64Array.of(3, 4, 100, 0, 0, 0, 0, 100); // two tokens, two heads of two numbers

test('the relative norm is taken per head over all tokens of the call', () => {
  const actual = Float64Array.from(wanted);
  actual[0] = 3.5; // head 0 holds 3, 4, 0, 0
  expect(errorsByHead(actual, wanted, 2, 2)).toEqual([0.1, 0]);
});

test('a number where zero is wanted is an infinite error, and NaN is no small one', () => {
  expect(errorsByHead(Float64Array.of(1e-30), Float64Array.of(0), 1, 1)).toEqual([Number.POSITIVE_INFINITY]);
  expect(errorsByHead(Float64Array.of(0), Float64Array.of(0), 1, 1)).toEqual([0]);
  expect(errorsByHead(Float64Array.of(Number.NaN), Float64Array.of(1), 1, 1)).toEqual([Number.NaN]);
  const compare = (x: number) => () =>
    expectAccurate({
      what: 'it',
      dtype: 'float32',
      actual: Float32Array.of(x),
      wanted: Float64Array.of(0),
      heads: 1,
      dim: 1,
    });
  expect(compare(0)).not.toThrow();
  expect(compare(1e-30)).toThrow('not accurate');
  expect(compare(Number.NaN)).toThrow('not accurate');
});

test('huge and tiny numbers keep their relative norm', () => {
  expect(errorsByHead(Float64Array.of(1.1e300), Float64Array.of(1e300), 1, 1)[0]).toBeCloseTo(0.1, 12);
  expect(errorsByHead(Float64Array.of(1.1e-300), Float64Array.of(1e-300), 1, 1)[0]).toBeCloseTo(0.1, 12);
});

test('float32 may err by 1e-6, by 2e-7 more for each unit of the largest logit up to 64, and by 1e-8 beyond', () => {
  const actual = (error: number) => Float32Array.from(wanted, (x) => x * (1 + error));
  const compare = (error: number, maxLogit?: number[]) => () =>
    expectAccurate({
      what: 'it',
      dtype: 'float32',
      actual: actual(error),
      wanted,
      heads: 2,
      dim: 2,
      maxLogit,
      cuda: false,
    });
  expect(compare(0.8e-6)).not.toThrow();
  expect(compare(1.5e-6)).toThrow('head 0');
  expect(compare(5e-6, [30, 0])).toThrow('head 1');
  expect(compare(5e-6, [30, 30])).not.toThrow();
  expect(compare(2e-5, [1000, 1000])).not.toThrow();
  expect(compare(3e-5, [1000, 1000])).toThrow('head 0');
});

test.each(['float16', 'bfloat16'] as const)('%s may err by twice the error of rounding', (dtype) => {
  const thirds = Float64Array.of(1 / 3, 2 / 3, 5 / 3, 1 / 7);
  const compare = (numbers: Float64Array) => () =>
    expectAccurate({
      what: 'it',
      dtype,
      actual: encode(dtype, numbers),
      wanted: thirds,
      heads: 1,
      dim: 4,
      cuda: false,
    });
  const relative = dtype === 'float16' ? 2 ** -9 : 2 ** -7;
  expect(compare(thirds)).not.toThrow();
  expect(compare(thirds.map((x) => x * (1 + 1.5 * relative)))).toThrow('not accurate');
  const rounding = errorsByHead(rounded(dtype, thirds), thirds, 1, 4)[0];
  expect(allowedErrors({ dtype, wanted: thirds, heads: 1, dim: 4, cuda: false })).toEqual([2 * rounding]);
});

test('on CUDA the bounds grow with logits beyond 30, and with the rounding of rotated queries and keys', () => {
  const thirds = { wanted: new Float64Array(64).fill(1 / 3), heads: 1, dim: 64, cuda: true };
  expect(allowedErrors({ ...thirds, dtype: 'float32', maxLogit: [20] })).toEqual([1e-5]);
  expect(allowedErrors({ ...thirds, dtype: 'float32', maxLogit: [300] })[0]).toBeCloseTo(1e-4, 12);
  expect(allowedErrors({ ...thirds, dtype: 'bfloat16' })).toEqual([5e-3]);
  expect(allowedErrors({ ...thirds, dtype: 'float16', maxLogit: [16], rope: true })[0]).toBeCloseTo(
    1e-3 + 2 ** -9,
    12,
  );
});

test('on CUDA a few numbers of 16 bits may be rounded twice as badly as can be', () => {
  const few = { wanted: new Float64Array(63).fill(1 / 3), heads: 1, dim: 63, cuda: true };
  expect(allowedErrors({ ...few, dtype: 'bfloat16' })).toEqual([2.1 * 2 ** -8]);
  expect(allowedErrors({ ...few, dtype: 'float16' })).toEqual([2.1 * 2 ** -11]);
  expect(allowedErrors({ ...few, dtype: 'float32', maxLogit: [1] })).toEqual([1e-5]);
});

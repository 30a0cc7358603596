import type { DType, Tensor } from '../../lib';
import { decode, rounded } from './tensors';

const { abs, max, sqrt } = Math;

/** The accuracy that the project promises, in one place. All errors are relative norms per query head. */
export const FLOAT32_ERROR = 1e-6;
export const FLOAT32_ERROR_PER_LOGIT = 1e-8;
/** A 16-bit result may err by this many times the error of the exact result rounded to the type. */
export const ROUNDING_ERRORS = 2;
/** Where the exact result needs no rounding at all. */
const ROUNDING_FLOOR = 1e-9;

/** M and z after a short stream, for which the promise names no number: a few roundings to float32. */
export const SHORT_MEMORY_ERROR = 1e-6;

/** |actual - wanted| / |wanted| of each head in a [tokens, heads, dim] array. 0 / 0 is 0, x / 0 is Infinity. */
export function errorsByHead(
  actual: Float64Array,
  wanted: Float64Array,
  heads: number,
  dim: number,
): number[] {
  if (actual.length !== wanted.length)
    throw new Error(`${actual.length} numbers instead of ${wanted.length}`);
  if (actual.length === 0 || actual.length % (heads * dim) !== 0)
    throw new Error(`odd length ${actual.length}`);
  return Array.from({ length: heads }, (_, head) => {
    let error = 0;
    let norm = 0;
    // Divided by the largest number, or the squares of 1e-300 and 1e300 would leave the range.
    const unit = largestOf(wanted, heads, dim, head) || 1;
    for (let row = head * dim; row < wanted.length; row += heads * dim) {
      for (let j = row; j < row + dim; j++) {
        error += ((actual[j] - wanted[j]) / unit) ** 2;
        norm += (wanted[j] / unit) ** 2;
      }
    }
    if (Number.isNaN(error)) return Number.NaN;
    return error === 0 ? 0 : sqrt(error / norm);
  });
}

function largestOf(values: Float64Array, heads: number, dim: number, head: number): number {
  let largest = 0;
  for (let row = head * dim; row < values.length; row += heads * dim)
    for (let j = row; j < row + dim; j++) largest = max(largest, abs(values[j]));
  return largest;
}

export interface Comparison {
  what: string;
  dtype: DType;
  actual: Tensor;
  wanted: Float64Array;
  heads: number;
  dim: number;
  /** Per head; absent where no logit enters the result. */
  maxLogit?: ArrayLike<number>;
}

/** The error that the promise allows each head. */
export function allowedErrors({
  dtype,
  wanted,
  heads,
  dim,
  maxLogit,
}: Omit<Comparison, 'what' | 'actual'>): number[] {
  if (dtype === 'float32')
    return Array.from(
      { length: heads },
      (_, h) => FLOAT32_ERROR + FLOAT32_ERROR_PER_LOGIT * (maxLogit?.[h] ?? 0),
    );
  const rounding = errorsByHead(rounded(dtype, wanted), wanted, heads, dim);
  return rounding.map((error) => max(ROUNDING_ERRORS * error, ROUNDING_FLOOR));
}

/** Fails unless every head of the result is as accurate as promised. */
export function expectAccurate(comparison: Comparison): void {
  const { what, dtype, actual, wanted, heads, dim } = comparison;
  const errors = errorsByHead(decode(dtype, actual), wanted, heads, dim);
  const allowed = allowedErrors(comparison);
  const failures = errors
    .map((error, h) => `head ${h}: error ${error.toExponential(2)}, allowed ${allowed[h].toExponential(2)}`)
    .filter((_, h) => !(errors[h] <= allowed[h]));
  if (failures.length > 0) throw new Error(`${what} (${dtype}) is not accurate:\n  ${failures.join('\n  ')}`);
}

import { type DType, listDevices, type Tensor } from '../../lib';
import { onCuda } from './device';
import { decode, rounded } from './tensors';

const { abs, max, min, sqrt } = Math;

/**
 * The accuracy that the project promises, in one place. All errors are relative norms per query head over a call.
 * CPU: float32 errs by at most 1e-6, 2e-7 more for each unit of the largest |q| |k| scale up to 64 (where scores are
 * float32; tests put the largest logit in its place) and 1e-8 more for each unit beyond (where they are float64); a 16-bit type by twice what
 * rounding the exact result to it costs. CUDA: the bounds below for logits up to 30, in proportion beyond.
 */
const CPU_FLOAT32_ERROR = 1e-6;
export const FLOAT32_ERROR = onCuda ? 1e-5 : CPU_FLOAT32_ERROR;
const cpuFloat32Error = (logit: number) =>
  CPU_FLOAT32_ERROR + 2e-7 * min(logit, 64) + 1e-8 * max(logit - 64, 0);
export const ROUNDING_ERRORS = 2;
/** Where the exact result needs no rounding at all. */
const ROUNDING_FLOOR = 1e-9;

const CUDA_ERROR: Record<DType, number> = { float32: 1e-5, float16: 1e-3, bfloat16: 5e-3 };
const CUDA_LOGITS = 30;
/**
 * Read in 16 bits, M is rounded once and the result once more. Over many numbers that averages to much less than the
 * bounds above; a few may all be the worst. So may all results of a memory of one column, which says nearly the same to all.
 */
const FEW_NUMBERS = 64;
const WORST_ROUNDING: Record<DType, number> = { float32: 0, float16: 2 ** -11, bfloat16: 2 ** -8 };

/** Rotated queries and keys are rounded to the stream's type once more: what a logit of 1 loses by that. */
const CUDA_ROPE_ERROR: Record<DType, number> = { float32: 0, float16: 2 ** -13, bfloat16: 2 ** -10 };

/** Tiles take a float32 factor as a pair of bfloat16, 16 bits of mantissa together (native/cpu/tiles.h). */
const onTiles = ['amx', 'tiles'].includes((listDevices()[0] as { simd?: string }).simd ?? '');
const PAIR_ERROR = 1e-5;

/** M and z after a short stream: a few roundings to float32; products of 16-bit streams may be less exact. */
export function shortMemoryError(dtype: DType): number {
  if (onCuda) return dtype === 'float32' ? 1e-6 : 1e-4;
  return onTiles && dtype === 'bfloat16' ? PAIR_ERROR : 1e-6;
}

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
  /** Whether the logits are of rotated queries and keys. */
  rope?: boolean;
  /** Only the tests of this file's own rules set it. */
  cuda?: boolean;
}

/** The error that the promise allows each head. */
export function allowedErrors(comparison: Omit<Comparison, 'what' | 'actual'>): number[] {
  const { dtype, wanted, heads, dim, maxLogit, rope, cuda = onCuda } = comparison;
  const logit = (head: number) => maxLogit?.[head] ?? 0;
  const perHead = (error: (head: number) => number) => Array.from({ length: heads }, (_, h) => error(h));
  if (!cuda && dtype === 'float32') return perHead((h) => cpuFloat32Error(logit(h)));

  const rounding = dtype === 'float32' ? [] : errorsByHead(rounded(dtype, wanted), wanted, heads, dim);
  const roundings = (h: number) => max(ROUNDING_ERRORS * (rounding[h] ?? 0), ROUNDING_FLOOR);
  if (!cuda) return perHead(roundings);
  const few = wanted.length / heads < FEW_NUMBERS || dim === 1 ? 2.1 * WORST_ROUNDING[dtype] : 0;
  return perHead((h) =>
    max(
      few,
      CUDA_ERROR[dtype] * max(1, logit(h) / CUDA_LOGITS) + (rope ? CUDA_ROPE_ERROR[dtype] * logit(h) : 0),
      roundings(h),
    ),
  );
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

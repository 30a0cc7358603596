// Looked up once: globals are slow under jest.
const { abs, floor, max, min } = Math;

/**
 * The two 16-bit formats, rounded straight from float64: going through float32 first would round twice.
 */
export interface HalfFormat {
  readonly name: 'float16' | 'bfloat16';
  /** Explicit bits of the significand. */
  readonly fractionBits: number;
  /** Exponent of the smallest normal number. */
  readonly minExponent: number;
  /** Bit pattern of +Infinity: every larger pattern (without the sign) is a NaN. */
  readonly infinity: number;
}

export const FLOAT16: HalfFormat = { name: 'float16', fractionBits: 10, minExponent: -14, infinity: 0x7c00 };
export const BFLOAT16: HalfFormat = {
  name: 'bfloat16',
  fractionBits: 7,
  minExponent: -126,
  infinity: 0x7f80,
};

const float64 = new Float64Array(1);
const float64Bits = new Uint32Array(float64.buffer); // little-endian: word 1 holds the exponent

/** Bit pattern of the number of the format nearest to x; ties go to the even pattern. */
export function encodeHalf(x: number, format: HalfFormat): number {
  const { fractionBits, minExponent, infinity } = format;
  float64[0] = x;
  const sign = (float64Bits[1] >>> 31) << 15;
  const exponent = max(((float64Bits[1] >>> 20) & 0x7ff) - 1023, minExponent);
  if (exponent === 1024) return sign | infinity | (Number.isNaN(x) ? 1 << (fractionBits - 1) : 0);
  const quantum = 2 ** (exponent - fractionBits);
  const steps = roundHalfToEven(abs(x) / quantum);
  // A normal number has steps in [2^f, 2^(f+1)]; its leading 1 and a carry both add one to the exponent field.
  const bits = (exponent - minExponent) * (1 << fractionBits) + steps;
  return sign | min(bits, infinity);
}

export function decodeHalf(bits: number, format: HalfFormat): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const size = bits & 0x7fff;
  if (size > format.infinity) return Number.NaN;
  if (size === format.infinity) return sign * Number.POSITIVE_INFINITY;
  const one = 1 << format.fractionBits;
  const fraction = size % one;
  const field = (size - fraction) / one;
  if (field === 0) return sign * fraction * 2 ** (format.minExponent - format.fractionBits);
  return sign * (one + fraction) * 2 ** (field - 1 + format.minExponent - format.fractionBits);
}

function roundHalfToEven(x: number): number {
  const below = floor(x);
  const rest = x - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}

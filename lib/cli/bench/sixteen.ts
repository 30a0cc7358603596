import type { DType } from '../../index';

/** Bit patterns of the 16-bit types, rounded to nearest even; for finite inputs of moderate size. */

const float = new Float32Array(1);
const word = new Uint32Array(float.buffer);

function toBfloat16(value: number): number {
  float[0] = value;
  return (word[0] + 0x7fff + ((word[0] >>> 16) & 1)) >>> 16;
}

function fromBfloat16(half: number): number {
  word[0] = half << 16;
  return float[0];
}

function toFloat16(value: number): number {
  float[0] = value;
  const sign = (word[0] >>> 16) & 0x8000;
  const magnitude = Math.abs(float[0]);
  // A subnormal is a multiple of 2^-24; rounding up to 2^-14 gives the first normal number, as it should.
  if (magnitude < 2 ** -14) return sign | roundEven(magnitude * 2 ** 24);
  const bits = word[0] & 0x7fffffff;
  return sign | ((bits - (112 << 23) + 0xfff + ((bits >>> 13) & 1)) >>> 13);
}

function fromFloat16(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >>> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}

function roundEven(value: number): number {
  const low = Math.floor(value);
  const rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
}

export function encode(values: Float32Array, dtype: DType): Float32Array | Uint16Array {
  if (dtype === 'float32') return values;
  return Uint16Array.from(values, dtype === 'bfloat16' ? toBfloat16 : toFloat16);
}

export function decode(values: Float32Array | Uint16Array, dtype: DType): Float32Array {
  if (values instanceof Float32Array) return values;
  return Float32Array.from(values, dtype === 'bfloat16' ? fromBfloat16 : fromFloat16);
}

import type { DType, Tensor } from '../../lib';
import { BFLOAT16, decodeHalf, encodeHalf, FLOAT16, type HalfFormat } from '../reference/half';

export const DTYPES: readonly DType[] = ['float32', 'bfloat16', 'float16'];

/** What a stream is given, and the numbers that it means: the reference computes with the latter. */
export interface MadeTensor {
  data: Tensor;
  values: Float64Array;
}

/** Rounds numbers to the type. */
export function makeTensor(dtype: DType, numbers: ArrayLike<number>): MadeTensor {
  const data = encode(dtype, numbers);
  return { data, values: decode(dtype, data) };
}

export function encode(dtype: DType, numbers: ArrayLike<number>): Tensor {
  if (dtype === 'float32') return Float32Array.from(numbers);
  const format = formatOf(dtype);
  const data = new Uint16Array(numbers.length);
  for (let i = 0; i < data.length; i++) data[i] = encodeHalf(numbers[i], format);
  return data;
}

export function decode(dtype: DType, data: Tensor): Float64Array {
  if (dtype === 'float32') return Float64Array.from(data);
  const table = decodeTable(formatOf(dtype));
  const numbers = new Float64Array(data.length);
  for (let i = 0; i < data.length; i++) numbers[i] = table[data[i]];
  return numbers;
}

/** The numbers as the type would hold them. */
export function rounded(dtype: DType, numbers: ArrayLike<number>): Float64Array {
  return decode(dtype, encode(dtype, numbers));
}

export function emptyTensor(dtype: DType, length: number): Tensor {
  return dtype === 'float32' ? new Float32Array(length) : new Uint16Array(length);
}

/** An output array full of NaN: whatever a call leaves unwritten shows. */
export function poisoned(dtype: DType, length: number): Tensor {
  return dtype === 'float32'
    ? new Float32Array(length).fill(Number.NaN)
    : new Uint16Array(length).fill(0x7fff);
}

/** The raw bytes: equality means identical bits, NaNs and signs of zero included. */
export function bytesOf(array: ArrayBufferView): Buffer {
  return Buffer.from(array.buffer, array.byteOffset, array.byteLength);
}

function formatOf(dtype: DType): HalfFormat {
  return dtype === 'float16' ? FLOAT16 : BFLOAT16;
}

const tables = new Map<HalfFormat, Float64Array>();

function decodeTable(format: HalfFormat): Float64Array {
  const known = tables.get(format);
  if (known) return known;
  const table = Float64Array.from({ length: 65536 }, (_, bits) => decodeHalf(bits, format));
  tables.set(format, table);
  return table;
}

import { types } from 'node:util';
import { expected, fail } from '../errors';
import { lengthOf } from '../tensor';
import type { Tensor } from '../types';

export function newBytes(length: number, what: string): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(length);
  } catch {
    throw fail('ERR_OUT_OF_MEMORY', `Expected room for ${what} of ${length} bytes but the allocation failed`);
  }
}

/** A private copy, for the caller may change his own meanwhile. */
export function copyBytes(bytes: unknown): Uint8Array<ArrayBuffer> {
  if (!types.isUint8Array(bytes)) throw expected('ERR_INVALID_ARG_TYPE', 'bytes', 'a Uint8Array', bytes);
  const copy = newBytes(lengthOf(bytes as unknown as Tensor), 'a copy');
  Uint8Array.prototype.set.call(copy, bytes);
  return copy;
}

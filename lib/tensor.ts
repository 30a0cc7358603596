import { types } from 'node:util';
import { describe, fail } from './errors';
import type { DType, Tensor } from './types';

// The intrinsic getters: a typed array may carry own properties of the same names.
const TypedArray = Object.getPrototypeOf(Uint8Array.prototype);
const intrinsic = <T>(name: string): ((array: Tensor | Float64Array) => T) => {
  const get = Object.getOwnPropertyDescriptor(TypedArray, name)?.get as (this: Tensor | Float64Array) => T;
  return (array) => get.call(array);
};
export const lengthOf = intrinsic<number>('length');
export const bufferOf = intrinsic<ArrayBufferLike>('buffer');
export const byteOffsetOf = intrinsic<number>('byteOffset');
export const byteLengthOf = intrinsic<number>('byteLength');

export function isShared(tensor: Tensor): boolean {
  return types.isSharedArrayBuffer(bufferOf(tensor));
}

export function isResizable(tensor: Tensor): boolean {
  return (bufferOf(tensor) as { resizable?: boolean }).resizable === true;
}

/** Whether the array was transferred since it was checked: an output is never empty. */
export const isDetached = (tensor: Tensor): boolean => lengthOf(tensor) === 0;

export const elementBytes = (dtype: DType): number => (dtype === 'float32' ? 4 : 2);

export function checkClass(name: string, value: unknown, dtype: DType): asserts value is Tensor {
  const right = dtype === 'float32' ? types.isFloat32Array(value) : types.isUint16Array(value);
  if (right) return;
  const wanted = dtype === 'float32' ? 'a Float32Array' : 'a Uint16Array';
  throw fail(
    'ERR_DTYPE',
    `Expected ${wanted} (dtype '${dtype}') for "${name}" but received ${describe(value)}`,
  );
}

export const newTensor = (dtype: DType, length: number): Tensor => {
  try {
    return dtype === 'float32' ? new Float32Array(length) : new Uint16Array(length);
  } catch {
    throw fail(
      'ERR_OUT_OF_MEMORY',
      `Expected room for an output of ${length} elements but the allocation failed`,
    );
  }
};

/** A private copy of what another thread could change after its check. */
export const unshare = (tensor: Tensor): Tensor => (isShared(tensor) ? copyOf(tensor) : tensor);

export function copyOf(tensor: Tensor): Tensor {
  const copy = newTensor(types.isFloat32Array(tensor) ? 'float32' : 'bfloat16', lengthOf(tensor));
  copy.set(tensor);
  return copy;
}

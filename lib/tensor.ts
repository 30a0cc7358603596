import { types } from 'node:util';
import { describe, expected, fail } from './errors';
import type { DType, ResolvedConfig, Tensor } from './types';

// The intrinsic getters: a typed array may carry own properties of the same names.
const TypedArray = Object.getPrototypeOf(Uint8Array.prototype);
const intrinsic = <T>(name: string): ((array: Tensor) => T) => {
  const get = Object.getOwnPropertyDescriptor(TypedArray, name)?.get as (this: Tensor) => T;
  return (array) => get.call(array);
};
const lengthOf = intrinsic<number>('length');
const bufferOf = intrinsic<ArrayBufferLike>('buffer');

export function isShared(tensor: Tensor): boolean {
  return types.isSharedArrayBuffer(bufferOf(tensor));
}

function isResizable(tensor: Tensor): boolean {
  return (bufferOf(tensor) as { resizable?: boolean }).resizable === true;
}

const isOfDType = (dtype: DType, value: unknown): value is Tensor =>
  dtype === 'float32' ? types.isFloat32Array(value) : types.isUint16Array(value);

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

/** First by type, then by class: the order in which the contract reports them. */
export function checkTypes(named: [string, unknown][], dtype: DType): void {
  for (const [name, value] of named) {
    if (!types.isTypedArray(value)) throw expected('ERR_INVALID_ARG_TYPE', name, 'a typed array', value);
  }
  const wanted = dtype === 'float32' ? 'a Float32Array' : 'a Uint16Array';
  for (const [name, value] of named) {
    if (!isOfDType(dtype, value)) {
      throw fail(
        'ERR_DTYPE',
        `Expected ${wanted} (dtype '${dtype}') for "${name}" but received ${describe(value)}`,
      );
    }
  }
}

export function checkOutBuffer(out: unknown): void {
  if (!types.isTypedArray(out)) return; // reported by checkTypes
  if (isShared(out as Tensor)) {
    throw fail(
      'ERR_INVALID_ARG_TYPE',
      'Expected an unshared array for "options.out" but received a shared one',
    );
  }
  if (isResizable(out as Tensor)) {
    throw fail(
      'ERR_INVALID_ARG_TYPE',
      'Expected a fixed-length array for "options.out" but received a resizable one',
    );
  }
}

function wrongShape(name: string, shape: (number | string)[], elements: string, received: Tensor): Error {
  return fail(
    'ERR_SHAPE',
    `Expected [${shape.join(', ')}], ${elements}, for "${name}" but received ${lengthOf(received)} elements`,
  );
}

/** Agreement of the lengths; returns the number of tokens. */
export function checkShapes(
  { heads, kvHeads, headDim, valueDim }: ResolvedConfig,
  { q, k, v }: { q: Tensor; k?: Tensor; v?: Tensor },
  out: Tensor | undefined,
): number {
  const width = heads * headDim;
  const tokens = lengthOf(q) / width;
  if (tokens < 1 || !Number.isInteger(tokens)) {
    throw wrongShape('input.q', ['tokens', heads, headDim], `a positive multiple of ${width} elements`, q);
  }
  const check = (name: string, tensor: Tensor | undefined, rows: number, columns: number) => {
    const elements = tokens * rows * columns;
    if (!tensor || lengthOf(tensor) === elements) return;
    throw wrongShape(
      name,
      [tokens, rows, columns],
      `${elements} elements for the ${tokens} tokens of q`,
      tensor,
    );
  };
  check('input.k', k, kvHeads, headDim);
  check('input.v', v, kvHeads, valueDim);
  check('options.out', out, heads, valueDim);
  return tokens;
}

/** Whether the array was transferred since it was checked: an output is never empty. */
export const isDetached = (tensor: Tensor): boolean => lengthOf(tensor) === 0;

/** A private copy of what another thread could change after its check. */
export function unshare<T extends Tensor | undefined>(tensor: T): T {
  if (!tensor || !isShared(tensor)) return tensor;
  const copy = newTensor(types.isFloat32Array(tensor) ? 'float32' : 'bfloat16', lengthOf(tensor));
  copy.set(tensor);
  return copy as T;
}

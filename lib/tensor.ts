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

const widths = ({ heads, kvHeads, headDim, valueDim }: ResolvedConfig) => ({
  q: { width: heads * headDim, shape: `[tokens, ${heads}, ${headDim}]` },
  k: { width: kvHeads * headDim, shape: `[tokens, ${kvHeads}, ${headDim}]` },
  v: { width: kvHeads * valueDim, shape: `[tokens, ${kvHeads}, ${valueDim}]` },
});

/** Agreement of the lengths; returns the number of tokens. */
export function checkShapes(
  config: ResolvedConfig,
  tensors: { q: Tensor; k?: Tensor; v?: Tensor },
  out: Tensor | undefined,
): number {
  const expectedOf = widths(config);
  const elements = lengthOf(tensors.q);
  const tokens = elements / expectedOf.q.width;
  if (elements === 0 || !Number.isInteger(tokens)) {
    const what = `${expectedOf.q.shape} with tokens >= 1, a multiple of ${expectedOf.q.width} elements,`;
    throw fail('ERR_SHAPE', `Expected ${what} for "input.q" but received ${elements} elements`);
  }
  for (const name of ['k', 'v'] as const) {
    const tensor = tensors[name];
    const { width, shape } = expectedOf[name];
    if (tensor && lengthOf(tensor) !== tokens * width) {
      const what = `${shape} with the ${tokens} tokens of q, ${tokens * width} elements,`;
      throw fail(
        'ERR_SHAPE',
        `Expected ${what} for "input.${name}" but received ${lengthOf(tensor)} elements`,
      );
    }
  }
  const length = tokens * config.heads * config.valueDim;
  if (out && lengthOf(out) !== length) {
    const shape = `[${tokens}, ${config.heads}, ${config.valueDim}], ${length} elements,`;
    throw fail('ERR_SHAPE', `Expected ${shape} for "options.out" but received ${lengthOf(out)} elements`);
  }
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

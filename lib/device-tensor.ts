import { types } from 'node:util';
import { checkArray } from './config';
import { expected, fail } from './errors';
import { placeInHostBuffer } from './host-buffer';
import { type NativeDevice, native } from './native';
import { type Placement, SharedMemory } from './shared-memory';
import { checkClass, elementBytes, lengthOf, newTensor } from './tensor';
import type { DType, Tensor } from './types';

const dtypes: readonly unknown[] = ['float32', 'bfloat16', 'float16'];
const mostDimensions = 8;

// Only this file makes device tensors: `new DeviceTensor()` by anyone else has no key.
const key = Symbol('infini-stream tensor');

/** For lib/device.ts. */
export let makeDeviceTensor: (
  handle: NativeDevice,
  device: string,
  shape: unknown,
  dtype: unknown,
  data: unknown,
) => DeviceTensor;
/** What a device tensor is, whatever properties users have put on it: for lib/operands.ts. */
export interface Inside {
  readonly placement: Placement;
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly elements: number;
  readonly byteLength: number;
}
/** Undefined for everything else. */
export let insideOf: (value: unknown) => Inside | undefined;

/**
 * A tensor in the device's own memory. `attend`, `retrieve` and batches take it for q, k, v and `out`, and use it in
 * place: nothing is copied to or from JavaScript. Made by `device.tensor`.
 *
 * A call *leases* its tensors until its promise settles. A leased one can not be written or closed (ERR_BUSY), nor
 * be another call's `out`; the `out` of a pending call can not be read either. Any number of calls may read the same
 * one. Its memory is freed by `close()`, by closing the device, or when it is collected, but never under a call.
 */
export class DeviceTensor {
  readonly #inside: Inside;

  static {
    makeDeviceTensor = (handle, device, givenShape, givenDType, data) => {
      const shape = Object.freeze(readShape(givenShape));
      const dtype = readDType(givenDType);
      const elements = shape.reduce((product, size) => product * size, 1);
      const byteLength = elements * elementBytes(dtype);
      if (!Number.isSafeInteger(byteLength))
        throw fail(
          'ERR_OUT_OF_RANGE',
          `Expected less than 2 ** 53 bytes for "shape" but received ${byteLength}`,
        );
      if (data !== undefined) checkData(data, dtype, elements, device);
      const memory = new SharedMemory(native.createTensor(handle, byteLength), device);
      if (data !== undefined) native.writeTensor(memory.native, data as Tensor);
      const placement = { memory, begin: 0, end: byteLength };
      return new DeviceTensor(key, { placement, shape, dtype, elements, byteLength });
    };
    insideOf = (value) =>
      typeof value === 'object' && value !== null && #inside in value ? value.#inside : undefined;
  }

  private constructor(secret: symbol, inside: Inside) {
    if (secret !== key)
      throw fail('ERR_INVALID_ARG_TYPE', 'Expected DeviceTensor to be made by device.tensor()');
    this.#inside = inside;
  }

  static #of(receiver: unknown, method: string): Inside {
    const inside = insideOf(receiver);
    if (inside) return inside;
    throw fail('ERR_INVALID_ARG_TYPE', `Expected a DeviceTensor as the receiver of ${method}`);
  }

  /** As given to `device.tensor`; frozen. */
  get shape(): readonly number[] {
    return DeviceTensor.#of(this, 'shape').shape;
  }

  /** The type of its elements. */
  get dtype(): DType {
    return DeviceTensor.#of(this, 'dtype').dtype;
  }

  /** Bytes of its elements. */
  get byteLength(): number {
    return DeviceTensor.#of(this, 'byteLength').byteLength;
  }

  /** Whether {@link close} was called, on it or on its device. */
  get closed(): boolean {
    return native.tensorClosed(DeviceTensor.#of(this, 'closed').placement.memory.native);
  }

  /**
   * Replaces all elements; when it returns, `data` is the caller's again.
   * @throws ERR_CLOSED, ERR_INVALID_ARG_TYPE, ERR_DTYPE, ERR_SHAPE, ERR_BUSY while a call uses the tensor, ERR_DEVICE.
   */
  write(data: Tensor): void {
    const inside = DeviceTensor.#of(this, 'write');
    checkOpen(inside);
    checkData(data, inside.dtype, inside.elements, inside.placement.memory.device);
    checkUnused(inside, 'write');
    native.writeTensor(inside.placement.memory.native, data);
  }

  /**
   * A copy of the elements, made behind the event loop; the tensor is leased meanwhile, as by a call that reads it.
   * Never throws; rejects with ERR_CLOSED, ERR_BUSY while the tensor is a call's `out`, ERR_OUT_OF_MEMORY or
   * ERR_DEVICE.
   */
  read(): Promise<Tensor> {
    try {
      return read(DeviceTensor.#of(this, 'read'));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Frees the memory. Idempotent. @throws ERR_BUSY while a call uses the tensor. */
  close(): void {
    close(DeviceTensor.#of(this, 'close'));
  }

  /** {@link close}. @throws ERR_BUSY while a call uses the tensor. */
  [Symbol.dispose](): void {
    close(DeviceTensor.#of(this, '[Symbol.dispose]'));
  }
}

function read(inside: Inside): Promise<Tensor> {
  checkOpen(inside);
  const { placement, dtype, elements } = inside;
  const { memory } = placement;
  if (memory.isWritten(placement))
    throw fail('ERR_BUSY', 'Expected no pending call that writes to the tensor but there is one');
  return new Promise((resolve, reject) => {
    native.readTensor(memory.native, (error) => {
      release();
      try {
        if (error) throw error;
        const numbers = newTensor(dtype, elements);
        native.take(numbers);
        resolve(numbers);
      } catch (failure) {
        reject(failure);
      }
    });
    const release = memory.read(placement);
  });
}

function close(inside: Inside): void {
  const { memory } = inside.placement;
  if (native.tensorClosed(memory.native)) return;
  checkUnused(inside, 'close');
  native.closeTensor(memory.native);
}

function checkOpen({ placement }: Inside): void {
  if (native.tensorClosed(placement.memory.native))
    throw fail('ERR_CLOSED', 'Expected an open tensor but it is closed');
}

function checkUnused({ placement }: Inside, method: string): void {
  if (placement.memory.isUsed(placement))
    throw fail('ERR_BUSY', `Expected no pending call that uses the tensor for ${method}() but there is one`);
}

function checkData(data: unknown, dtype: DType, elements: number, device: string): asserts data is Tensor {
  if (!types.isTypedArray(data)) throw expected('ERR_INVALID_ARG_TYPE', 'data', 'a typed array', data);
  checkClass('data', data, dtype);
  if (lengthOf(data) !== elements)
    throw fail('ERR_SHAPE', `Expected ${elements} elements for "data" but received ${lengthOf(data)}`);
  const placement = placeInHostBuffer(data, device);
  if (placement?.memory.isWritten(placement))
    throw fail('ERR_BUSY', 'Expected no pending call that writes to "data" but there is one');
}

function readDType(dtype: unknown): DType {
  if (typeof dtype !== 'string') throw expected('ERR_INVALID_ARG_TYPE', 'dtype', 'a string', dtype);
  if (!dtypes.includes(dtype))
    throw expected('ERR_OUT_OF_RANGE', 'dtype', `'float32', 'bfloat16' or 'float16'`, dtype);
  return dtype as DType;
}

/** A copy: reading an array may run user code. */
function readShape(shape: unknown): number[] {
  const length = checkArray(shape, 'shape', 1, mostDimensions);
  return Array.from({ length }, (_, dimension) => {
    const size = (shape as unknown[])[dimension];
    const name = `shape[${dimension}]`;
    if (typeof size !== 'number') throw expected('ERR_INVALID_ARG_TYPE', name, 'a number', size);
    if (!Number.isSafeInteger(size) || size < 1)
      throw expected('ERR_OUT_OF_RANGE', name, 'an integer above 0', size);
    return size;
  });
}

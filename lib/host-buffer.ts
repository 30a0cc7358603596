import { constants } from 'node:buffer';
import { expected } from './errors';
import { type NativeDevice, native } from './native';
import { type Placement, SharedMemory } from './shared-memory';
import { bufferOf, byteLengthOf, byteOffsetOf } from './tensor';
import type { Tensor } from './types';

const memories = new WeakMap<ArrayBufferLike, SharedMemory>();

export function makeHostBuffer(handle: NativeDevice, device: string, byteLength: unknown): ArrayBuffer {
  if (typeof byteLength !== 'number')
    throw expected('ERR_INVALID_ARG_TYPE', 'byteLength', 'a number', byteLength);
  if (!Number.isInteger(byteLength) || byteLength < 1 || byteLength > constants.MAX_LENGTH) {
    throw expected(
      'ERR_OUT_OF_RANGE',
      'byteLength',
      `an integer from 1 to ${constants.MAX_LENGTH}`,
      byteLength,
    );
  }
  const [buffer, memory] = native.createHostBuffer(handle, byteLength);
  memories.set(buffer, new SharedMemory(memory, device));
  return buffer;
}

/** Where an array lies, if it lies in a host buffer of this device; elsewhere it is an array like any other. */
export function placeInHostBuffer(array: Tensor, device: string): Placement | undefined {
  const memory = memories.get(bufferOf(array));
  if (memory?.device !== device) return undefined;
  const begin = byteOffsetOf(array);
  return { memory, begin, end: begin + byteLengthOf(array) };
}

import { type NativeDevice, type NativeMemory, type NativeOperand, native } from '../native';
import { bufferOf, copyOf, elementBytes, isShared } from '../tensor';
import type { DType, Tensor } from '../types';

/** What a request takes, q, k and v or q alone, and its pieces are cut from. */
export interface Inputs {
  /** So many elements of one of them, as native functions take them. */
  part(index: number, from: number, elements: number): NativeOperand;
  /** They are needed no more. */
  release(): void;
}

/** Arrays: each piece is copied once more when it goes to the device. */
export class Arrays implements Inputs {
  constructor(readonly arrays: readonly Tensor[]) {}

  part(index: number, from: number, elements: number): Tensor {
    return (this.arrays[index] as Tensor).subarray(from, from + elements);
  }

  release(): void {}
}

/** Memory of the device's, from where pieces are used in place. */
class Staged implements Inputs {
  readonly #memories: NativeMemory[] = [];

  constructor(
    device: NativeDevice,
    arrays: readonly Tensor[],
    readonly dtype: DType,
  ) {
    try {
      for (const array of arrays) this.#memories.push(native.stage(device, array));
    } catch (error) {
      this.release();
      throw error;
    }
  }

  part(index: number, from: number, elements: number): NativeOperand {
    return [this.#memories[index] as NativeMemory, from * elementBytes(this.dtype), elements];
  }

  release(): void {
    for (const memory of this.#memories) native.closeTensor(memory);
  }
}

/**
 * Private copies. On the processor they lie where calls use them; a GPU's staging is pinned memory, too dear for what only
 * waits.
 */
export const copied = (
  arrays: readonly Tensor[],
  dtype: DType,
  home: NativeDevice,
  onCpu: boolean,
): Inputs => (onCpu ? new Staged(home, arrays, dtype) : new Arrays(arrays.map(copyOf)));

/** The arrays' own memory, taken from the caller; undefined when it cannot be. */
export function transferred(arrays: readonly Tensor[]): Inputs | undefined {
  if (arrays.some(isShared)) return undefined;
  try {
    const buffers = new Set(arrays.map(bufferOf)) as Set<ArrayBuffer>;
    return new Arrays(structuredClone(arrays, { transfer: [...buffers] }));
  } catch {
    return undefined; // Node keeps it, as it does a small Buffer's memory
  }
}

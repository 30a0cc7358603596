import vm from 'node:vm';
import type { DType, Tensor } from '../../lib';
import type { Hostile } from './hostile';

/** ES2024, which Node 20 has and the es2022 types do not. */
interface Resizable {
  resize?(bytes: number): void;
  grow?(bytes: number): void;
}
type NewBuffer = new (bytes: number, options?: { maxByteLength: number }) => ArrayBuffer & Resizable;
const LongBuffer = ArrayBuffer as NewBuffer;
const LongShared = SharedArrayBuffer as unknown as NewBuffer;

const CLASSES = [
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
] as const;

const foreign = vm.createContext({});

export function detach(buffer: ArrayBufferLike): void {
  try {
    if (buffer instanceof ArrayBuffer) structuredClone(buffer, { transfer: [buffer] });
  } catch {
    // detached before
  }
}

export function resize(buffer: ArrayBufferLike, bytes: number): void {
  try {
    (buffer as Resizable).resize?.(bytes);
    (buffer as Resizable).grow?.(bytes);
  } catch {
    // of fixed length, or beyond its maximum
  }
}

export const classOf = (dtype: DType) => (dtype === 'float32' ? Float32Array : Uint16Array);

/** An array of the right class and length, and a plain view of the same memory. */
export interface Placed {
  array: Tensor;
  raw: Tensor;
}

export function place(
  hostile: Hostile,
  dtype: DType,
  length: number,
  where: 'anywhere' | 'plain' | 'exotic' = 'anywhere',
): Placed {
  const Class = classOf(dtype);
  const size = Class.BYTES_PER_ELEMENT;
  const bytes = length * size;
  const offset = hostile.rng.int(1, 20) * size;
  const on = (buffer: ArrayBufferLike, at: number): Placed => {
    const raw = new Class(buffer as ArrayBuffer, at, length);
    return { array: raw, raw };
  };
  // Where an output may lie.
  const plain: [string, () => Placed][] = [
    ['plain', () => on(new ArrayBuffer(bytes), 0)],
    ['offset', () => on(new ArrayBuffer(bytes + offset + 7), offset)],
    ['pooled', () => on(Buffer.alloc(bytes + offset + 8).buffer, offset)],
    ['subclass', () => sneaky(hostile, dtype, length)],
    [
      'foreign',
      () => {
        const array = vm.runInContext(`new ${Class.name}(${length})`, foreign) as Tensor;
        return { array, raw: new Class(array.buffer as ArrayBuffer, 0, length) };
      },
    ],
  ];
  // Where only inputs may.
  const exotic: [string, () => Placed][] = [
    ['shared', () => on(new SharedArrayBuffer(bytes + offset), offset)],
    [
      'resizable',
      () => on(new LongBuffer(bytes + offset, { maxByteLength: 2 * bytes + offset + 64 }), offset),
    ],
    [
      'tracking',
      () => {
        const buffer = new LongBuffer(bytes + offset, { maxByteLength: 2 * bytes + offset + 64 });
        const array = new Class(buffer, offset);
        return { array, raw: array };
      },
    ],
    [
      'growable',
      () => {
        const buffer = new LongShared(bytes + offset, { maxByteLength: 2 * bytes + offset + 64 });
        const array = new Class(buffer, offset);
        return { array, raw: array };
      },
    ],
  ];
  const [name, make] = hostile.rng.pick({ plain, exotic, anywhere: [...plain, ...exotic] }[where]);
  return hostile.note(`${name}(${length})`, make());
}

/** A subclass that lies about everything it can. */
function sneaky(hostile: Hostile, dtype: DType, length: number): Placed {
  const Class = classOf(dtype) as typeof Float32Array;
  const raw = new Class(length);
  class Sneaky extends Class {
    static get [Symbol.species]() {
      return hostile.ambush(Float64Array);
    }
  }
  const array = new Sneaky(raw.buffer);
  const lie = (name: PropertyKey, value: unknown) =>
    Object.defineProperty(array, name, { get: () => hostile.ambush(value), configurable: true });
  for (const [name, value] of [
    ['length', 3],
    ['buffer', new ArrayBuffer(8)],
    ['byteLength', 1e9],
    ['byteOffset', 13],
    ['BYTES_PER_ELEMENT', 0],
    ['constructor', Array],
    ['set', null],
    ['subarray', null],
    [Symbol.toStringTag, 'Float64Array'],
    [Symbol.iterator, null],
  ] as const) {
    if (hostile.rng.uniform() < 0.3) lie(name, value);
  }
  return { array, raw };
}

/** Any typed array at all: another class, empty, detached, out of bounds, overridden. */
export function anyArray(hostile: Hostile): unknown {
  const { rng } = hostile;
  const Class = rng.pick(CLASSES) as typeof Float32Array;
  const length = rng.pick([0, 0, 1, 3, 16, 17, 100]);
  const size = Class.BYTES_PER_ELEMENT;
  const made = rng.pick<() => unknown>([
    () => new Class(length),
    () => new Class(new SharedArrayBuffer(length * size)),
    () => {
      const array = new Class(length);
      detach(array.buffer);
      return hostile.note('detached', array);
    },
    () => {
      const buffer = new LongBuffer((length + 1) * size, { maxByteLength: 4096 });
      const array = rng.uniform() < 0.5 ? new Class(buffer, size) : new Class(buffer, size, length);
      resize(buffer, rng.pick([0, size, 4096]));
      return hostile.note('resized', array);
    },
    () => hostile.proxy(new Class(length)),
    () => Object.create(new Class(length)),
    () => sneaky(hostile, rng.pick(['float32', 'float16'] as const), length).array,
  ])();
  return hostile.note(`${Class.name}(${length})`, made);
}

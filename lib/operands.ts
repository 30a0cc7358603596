import { types } from 'node:util';
import { type DeviceTensor, type Inside, insideOf } from './device-tensor';
import { expected, fail } from './errors';
import { placeInHostBuffer } from './host-buffer';
import { type NativeOperand, native } from './native';
import type { Placement } from './shared-memory';
import { checkClass, isResizable, isShared, lengthOf, unshare } from './tensor';
import type { ResolvedConfig, Tensor } from './types';

/** What users give for a tensor. */
export type Given = Tensor | DeviceTensor;

/** Where calls run. */
export interface Place {
  readonly config: ResolvedConfig;
  /** The device's id. */
  readonly device: string;
}

/** A tensor of a call; anything at all until checkTypes has looked at it. */
export class Operand {
  /** Of a device tensor. */
  readonly inside: Inside | undefined;

  constructor(
    /** What the user calls it: `entries[3].` and `q`, say. */
    readonly prefix: string,
    readonly key: string,
    readonly given: Given,
  ) {
    this.inside = insideOf(given);
  }

  get name(): string {
    return this.prefix + this.key;
  }

  get elements(): number {
    return this.inside ? this.inside.elements : lengthOf(this.given as Tensor);
  }

  /** Where it is used in place; undefined for an ordinary array, which is copied. */
  placement(device: string): Placement | undefined {
    return this.inside ? this.inside.placement : placeInHostBuffer(this.given as Tensor, device);
  }

  /** As native functions take it. */
  native(device: string): NativeOperand {
    if (this.inside) return this.inside.placement.memory.native;
    const placement = this.placement(device);
    return placement ? [placement.memory.native, placement.begin, this.elements] : (this.given as Tensor);
  }

  /** For native functions that read it while they run: what another thread could change meanwhile is copied. */
  steady(device: string): NativeOperand {
    const shared = !this.inside && isShared(this.given as Tensor);
    return shared ? unshare(this.given as Tensor) : this.native(device);
  }

  /** As an `out` that native code fills by itself; undefined for one that is filled when the call has settled. */
  filled(device: string): NativeOperand | undefined {
    return this.placement(device) && this.native(device);
  }
}

/** The tensors of a call; neither k nor v for retrieval. */
export interface Operands {
  readonly q: Operand;
  readonly k: Operand | undefined;
  readonly v: Operand | undefined;
  readonly out: Operand | undefined;
}

/** Those of attend, given in one object. */
export function readOperands(prefix: string, q: unknown, k: unknown, v: unknown, out: unknown): Operands {
  return {
    q: new Operand(prefix, 'q', q as Given),
    k: new Operand(prefix, 'k', k as Given),
    v: new Operand(prefix, 'v', v as Given),
    out: out === undefined ? undefined : new Operand(prefix, 'out', out as Given),
  };
}

/** Types, then tensors that are closed, then the dtype: each of all operands before the next, as the contract says. */
export function checkTypes({ q, k, v, out }: Operands, place: Place): void {
  const all: Operand[] = [q];
  if (k && v) all.push(k, v);
  if (out) {
    checkOutBuffer(out);
    all.push(out);
  }
  for (const operand of all) checkType(operand, place.device);
  for (const { inside, name } of all) {
    if (inside && native.tensorClosed(inside.placement.memory.native))
      throw fail('ERR_CLOSED', `Expected an open tensor for "${name}" but it is closed`);
  }
  for (const operand of all) checkDType(operand, place.config);
}

function checkType({ inside, given, name }: Operand, device: string): void {
  if (!inside && !types.isTypedArray(given))
    throw expected('ERR_INVALID_ARG_TYPE', name, 'a typed array or a DeviceTensor', given);
  const home = inside?.placement.memory.device ?? device;
  if (home !== device) {
    throw fail(
      'ERR_INVALID_ARG_TYPE',
      `Expected a tensor of '${device}' for "${name}" but received one of '${home}'`,
    );
  }
}

function checkDType({ inside, given, name }: Operand, { dtype }: ResolvedConfig): void {
  if (!inside) checkClass(name, given, dtype);
  else if (inside.dtype !== dtype)
    throw fail('ERR_DTYPE', `Expected dtype '${dtype}' for "${name}" but received '${inside.dtype}'`);
}

function checkOutBuffer({ given, name }: Operand): void {
  if (!types.isTypedArray(given)) return; // reported by checkType
  const wrong = (wanted: string, received: string) =>
    fail('ERR_INVALID_ARG_TYPE', `Expected ${wanted} array for "${name}" but received a ${received} one`);
  if (isShared(given as Tensor)) throw wrong('an unshared', 'shared');
  if (isResizable(given as Tensor)) throw wrong('a fixed-length', 'resizable');
}

function wrongShape({ inside, given, name }: Operand, shape: (number | string)[], elements: string): Error {
  const found = inside ? `[${inside.shape.join(', ')}]` : `${lengthOf(given as Tensor)} elements`;
  return fail(
    'ERR_SHAPE',
    `Expected [${shape.join(', ')}], ${elements}, for "${name}" but received ${found}`,
  );
}

/**
 * Agreement of the numbers of elements, and of the shapes of device tensors with three dimensions; returns the number
 * of tokens. `rows` is that number where it is fixed.
 */
export function checkShapes({ q, k, v, out }: Operands, { config }: Place, rows?: number): number {
  const { heads, kvHeads, headDim, valueDim } = config;
  const width = heads * headDim;
  const tokens = q.elements / width;
  if (rows !== undefined && tokens !== rows) {
    throw wrongShape(q, [rows, heads, headDim], `one token for each of ${rows} streams`);
  }
  if (tokens < 1 || !Number.isInteger(tokens)) {
    throw wrongShape(q, ['tokens', heads, headDim], `a positive multiple of ${width} elements`);
  }
  checkShape(q, tokens, heads, headDim);
  if (k) checkShape(k, tokens, kvHeads, headDim);
  if (v) checkShape(v, tokens, kvHeads, valueDim);
  if (out) checkShape(out, tokens, heads, valueDim);
  return tokens;
}

function checkShape(operand: Operand, tokens: number, heads: number, dim: number): void {
  const elements = tokens * heads * dim;
  const shape = operand.inside?.shape;
  const fits = shape?.length !== 3 || (shape[0] === tokens && shape[1] === heads && shape[2] === dim);
  if (operand.elements === elements && fits) return;
  throw wrongShape(operand, [tokens, heads, dim], `${elements} elements for the ${tokens} tokens of q`);
}

/** Leases every tensor that is used in place, all of them or none; returns the function that ends the leases. */
export function lease({ q, k, v, out }: Operands, { device }: Place): () => void {
  const leases: (() => void)[] = [];
  const release = () => {
    for (const end of leases) end();
  };
  for (const operand of [q, k, v]) {
    const placement = operand?.placement(device);
    if (!operand || !placement) continue;
    if (placement.memory.isWritten(placement)) {
      release();
      throw fail('ERR_BUSY', `Expected no pending call that writes to "${operand.name}" but there is one`);
    }
    leases.push(placement.memory.read(placement));
  }
  const placement = out?.placement(device);
  if (!out || !placement) return release;
  if (placement.memory.isUsed(placement)) {
    release();
    throw fail('ERR_BUSY', `Expected "${out.name}" for this result alone but this or a pending call uses it`);
  }
  leases.push(placement.memory.write(placement));
  return release;
}

import { type Abortable, checkSignal, isAborted, reasonOf, watchAbort } from '../abort';
import { checkRecord } from '../config';
import { abortError, expected, fail, type InfiniError, type NonFiniteError } from '../errors';
import type { NativeDevice } from '../native';
import { checkShapes, checkTypes, type Given, Operand, type Operands } from '../operands';
import type { StreamCore } from '../stream-core';
import { elementBytes, newTensor } from '../tensor';
import type { Tensor } from '../types';
import { copied, type Inputs, transferred } from './inputs';
import type { Member } from './member';
import { type Ended, Piece } from './piece';

const inputKeys = { attend: new Set(['q', 'k', 'v']), retrieve: new Set(['q']) };
const optionKeys = new Set(['signal', 'transfer']);

export type Operation = keyof typeof inputKeys;

/** What a request was asked, checked: everything user code could intercept is read once. */
export interface Asked {
  readonly operands: Operands;
  readonly tokens: number;
  readonly bytes: number;
  readonly signal: AbortSignal | undefined;
  readonly transfer: boolean;
}

/** As readCall of a stream; arrays only, because pieces of device tensors cannot be named. */
export function readAsked(member: Member, operation: Operation, input: unknown, options: unknown): Asked {
  const keys = inputKeys[operation];
  const tensors = checkRecord(input, 'input', keys);
  const operand = (key: string) => new Operand('input.', key, tensors[key] as Given);
  const q = operand('q');
  const [k, v] = operation === 'attend' ? [operand('k'), operand('v')] : [];
  const { signal, transfer = false } =
    options === undefined ? {} : checkRecord(options, 'options', optionKeys);
  const operands: Operands = { q, k, v, out: undefined };
  for (const one of [q, k, v]) {
    if (one?.inside) throw expected('ERR_INVALID_ARG_TYPE', one.name, 'a typed array', one.given);
  }
  const checked = checkSignal(signal);
  if (typeof transfer !== 'boolean')
    throw expected('ERR_INVALID_ARG_TYPE', 'options.transfer', 'a boolean', transfer);
  checkTypes(operands, member);
  const tokens = checkShapes(operands, member);
  if (checked && isAborted(checked)) throw abortError(reasonOf(checked));
  let elements = 0;
  for (const one of [q, k, v]) {
    if (!one) continue;
    const placement = one.placement(member.device);
    if (placement?.memory.isWritten(placement))
      throw fail('ERR_BUSY', `Expected no pending call that writes to "${one.name}" but there is one`);
    elements += one.elements;
  }
  return { operands, tokens, bytes: elements * elementBytes(member.config.dtype), signal: checked, transfer };
}

/** One call of a scheduled stream, from its check to the end of its promise. */
export class Request implements Abortable {
  readonly promise: Promise<Tensor>;
  /** Its pieces are cancelled by interrupt(). */
  readonly ticket = 0;
  readonly tokens: number;
  readonly bytes: number;
  /** Tokens that the device was given, and those of them that it has committed. */
  sent = 0;
  done = 0;
  /** At work. */
  readonly pieces = new Set<Piece>();
  /** Smaller than of those that became the first of their streams, or had to leave the device, later. */
  order = 0;
  /** It was brought to the device and has had no piece done since. */
  fresh = false;
  /** It has had its first turn. */
  started = false;
  /** The state is being saved before its first piece. */
  preparing = false;
  /** The state before it, if it may have to go back there; `image` is undefined for an empty stream. */
  saved: { readonly image: Uint8Array | undefined } | undefined;
  ended = false;
  /** Why it ends without a result. */
  failure: { readonly error: unknown } | undefined;
  readonly #signal: AbortSignal | undefined;
  /** The caller's own arrays, which are all it has until keep(): within the call that made it. */
  #given: readonly Operand[];
  #inputs: Inputs | undefined;
  #out: Tensor | undefined;
  #resolve: (out: Tensor) => void = () => {};
  #reject: (error: unknown) => void = () => {};
  #unwatch = () => {};
  #cut = () => {};

  constructor(
    readonly member: Member,
    readonly operation: Operation,
    { operands, tokens, bytes, signal }: Asked,
  ) {
    const { q, k, v } = operands;
    this.tokens = tokens;
    this.bytes = bytes;
    this.#given = k && v ? [q, k, v] : [q];
    this.#signal = signal;
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Whether the caller's arrays are still what it works on: only a whole request may be sent so. */
  get borrows(): boolean {
    return this.#given.length > 0;
  }

  /** Makes the caller's arrays the caller's again: copies them, or takes their memory. Throws when there is no room. */
  keep(transfer: boolean, home: NativeDevice, onCpu: boolean): void {
    const { device, config } = this.member;
    const given = this.#given;
    const arrays = given.map((one) => one.given as Tensor);
    const movable = transfer && !given.some((one) => one.placement(device));
    this.#inputs = (movable && transferred(arrays)) || copied(arrays, config.dtype, home, onCpu);
    this.#given = [];
  }

  get aborted(): boolean {
    return this.#signal !== undefined && isAborted(this.#signal);
  }

  /** Runs `cut` when the signal fires. */
  watch(cut: (error: InfiniError) => void): void {
    const signal = this.#signal;
    if (!signal) return;
    this.#cut = () => cut(abortError(reasonOf(signal)));
    this.#unwatch = watchAbort(signal, this);
  }

  interrupt(): void {
    this.#cut();
  }

  /** The next piece, of so many tokens. Throws when there is no room for the output. */
  piece(tokens: number, core: StreamCore, ended: Ended): Piece {
    const { heads, kvHeads, headDim, valueDim, dtype } = this.member.config;
    const { operation } = this;
    this.#out ??= newTensor(dtype, this.tokens * heads * valueDim);
    const out = tokens === this.tokens ? this.#out : this.#partOf(this.#out, tokens, heads * valueDim);
    const inputs = this.#inputs;
    if (!inputs) {
      const whole = this.#given.map(({ given }) => given as Tensor);
      this.#given = [];
      return new Piece(core, operation, tokens, whole, out, ended);
    }
    const part = (index: number, width: number) => inputs.part(index, this.sent * width, tokens * width);
    const parts = [part(0, heads * headDim)];
    if (operation === 'attend') parts.push(part(1, kvHeads * headDim), part(2, kvHeads * valueDim));
    return new Piece(core, operation, tokens, parts, out, ended);
  }

  #partOf(array: Tensor, tokens: number, width: number): Tensor {
    return array.subarray(this.sent * width, (this.sent + tokens) * width);
  }

  succeed(): void {
    this.#over();
    this.#resolve(this.#out as Tensor);
  }

  fail(error: unknown): void {
    this.#over();
    this.#reject(error);
  }

  #over(): void {
    this.ended = true;
    this.#unwatch();
    this.#inputs?.release();
  }
}

/** An error of a piece that begins after so many tokens, as one of the whole request. */
export function shifted(error: unknown, before: number): unknown {
  const { code, token } = error as NonFiniteError;
  if (code !== 'ERR_NON_FINITE' || before === 0) return error;
  const { message, tensor } = error as NonFiniteError;
  const moved = fail(code, message.replace(/token \d+ of the call/, `token ${token + before} of the call`));
  return Object.assign(moved, { tensor, token: token + before });
}

import { type Abortable, checkSignal, isAborted, reasonOf, watchAbort } from '../abort';
import { checkRecord } from '../config';
import { abortError, expected, fail, type InfiniError, type NonFiniteError } from '../errors';
import { checkCall, Job } from '../job';
import { checkShapes, checkTypes, type Given, Operand, type Operands } from '../operands';
import type { StreamCore } from '../stream-core';
import { bufferOf, copyOf, elementBytes, isShared, newTensor } from '../tensor';
import type { Tensor } from '../types';
import type { Member } from './member';

const inputKeys = { attend: new Set(['q', 'k', 'v']), retrieve: new Set(['q']) };
const optionKeys = new Set(['signal', 'transfer']);

export type Operation = keyof typeof inputKeys;

/** What a request takes: private copies, so that the caller's arrays are the caller's at once. */
interface Copies {
  readonly q: Tensor;
  readonly k: Tensor | undefined;
  readonly v: Tensor | undefined;
}

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

function copied({ q, k, v }: Operands): Copies {
  const copy = ({ given }: Operand) => copyOf(given as Tensor);
  return { q: copy(q), k: k && copy(k), v: v && copy(v) };
}

/** The arrays' own memory, taken from the caller; undefined when it cannot be. */
function transferred({ q, k, v }: Operands, device: string): Copies | undefined {
  const operands = k && v ? [q, k, v] : [q];
  const arrays = operands.map(({ given }) => given as Tensor);
  if (arrays.some(isShared) || operands.some((one) => one.placement(device))) return undefined;
  try {
    const buffers = new Set(arrays.map(bufferOf)) as Set<ArrayBuffer>;
    const [query, key, value] = structuredClone(arrays, { transfer: [...buffers] });
    return { q: query, k: key, v: value };
  } catch {
    return undefined; // Node keeps it, as it does a small Buffer's memory
  }
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
  /** Its pieces at work. */
  readonly jobs = new Set<Job>();
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
  readonly #copies: Copies;
  readonly #signal: AbortSignal | undefined;
  #out: Tensor | undefined;
  #resolve: (out: Tensor) => void = () => {};
  #reject: (error: unknown) => void = () => {};
  #unwatch = () => {};
  #cut = () => {};

  constructor(
    readonly member: Member,
    readonly operation: Operation,
    { operands, tokens, bytes, signal, transfer }: Asked,
  ) {
    this.tokens = tokens;
    this.bytes = bytes;
    this.#signal = signal;
    this.#copies = (transfer && transferred(operands, member.device)) || copied(operands);
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
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
  piece(tokens: number, core: StreamCore): Job {
    const { heads, kvHeads, headDim, valueDim, dtype } = core.config;
    const { q, k, v } = this.#copies;
    this.#out ??= newTensor(dtype, this.tokens * heads * valueDim);
    const part = (key: string, array: Tensor, width: number) =>
      new Operand('input.', key, array.subarray(this.sent * width, (this.sent + tokens) * width));
    const operands: Operands = {
      q: part('q', q, heads * headDim),
      k: k && part('k', k, kvHeads * headDim),
      v: v && part('v', v, kvHeads * valueDim),
      out: part('out', this.#out, heads * valueDim),
    };
    return new Job(checkCall(operands, undefined, core), core, core);
  }

  succeed(): void {
    this.#unwatch();
    this.#resolve(this.#out as Tensor);
  }

  fail(error: unknown): void {
    this.#unwatch();
    this.#reject(error);
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

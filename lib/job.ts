import { type Abortable, checkSignal, isAborted, reasonOf, watchAbort } from './abort';
import { attended, begin, failed } from './diagnostics';
import { abortError, type InfiniError } from './errors';
import { type NativeOperand, native, type Settle } from './native';
import { checkShapes, checkTypes, type Given, lease, Operand, type Operands, type Place } from './operands';
import { isDetached, newTensor } from './tensor';
import type { Tensor } from './types';

/** A call, checked: what to run and where its result goes. */
export interface Call extends Operands {
  readonly out: Operand;
  readonly tokens: number;
  readonly signal: AbortSignal | undefined;
}

/** Types, closed tensors, dtype, shape, signal: in this order. Everything user code could intercept was read before. */
export function checkCall(operands: Operands, givenSignal: unknown, place: Place, rows?: number): Call {
  const signal = checkSignal(givenSignal);
  checkTypes(operands, place);
  const tokens = checkShapes(operands, place, rows);
  if (signal && isAborted(signal)) throw abortError(reasonOf(signal));
  const { q, k, v, out = new Operand('', 'out', newOutput(place, tokens)) } = operands;
  return { q, k, v, out, tokens, signal };
}

const newOutput = ({ config }: Place, tokens: number): Tensor =>
  newTensor(config.dtype, tokens * config.heads * config.valueDim);

type NativeOperands<Out> = [q: NativeOperand, k: NativeOperand, v: NativeOperand, out: Out];

/** The tensors of attend for a native function that queues the call. */
export function operandsOf(
  { q, k, v, out }: Call,
  device: string,
): NativeOperands<NativeOperand | undefined> {
  return [q.native(device), (k as Operand).native(device), (v as Operand).native(device), out.filled(device)];
}

/** And for one that runs it. */
export function steadyOperandsOf({ q, k, v, out }: Call, device: string): NativeOperands<NativeOperand> {
  return [q.steady(device), (k as Operand).steady(device), (v as Operand).steady(device), out.native(device)];
}

/** Who counts a call: a stream, or all streams of a batch. */
export interface Books {
  /** It is queued. */
  begin(): void;
  /** It has settled. */
  end(): void;
  /** And changed the state: the tokens that native code counts. Returns how many segments it filled. */
  committed(tokens: number): number;
}

const nothing = () => {};
const operationOf = ({ k }: Call) => (k ? 'attend' : 'retrieve');

/**
 * The JavaScript side of one asynchronous call, from its check to the end of its promise.
 *
 * Making it may run user code (traps of the signal); from ready() until the call is queued none runs.
 */
export class Job implements Abortable {
  readonly promise: Promise<Given>;
  /** Of the queued call. */
  ticket = 0;
  /** Keeps the leases beyond the call's own end, until release(). */
  held = false;
  readonly #began = begin();
  readonly #resolve: (result: Given) => void;
  readonly #reject: (error: unknown) => void;
  #unwatch = nothing;
  #release = nothing;

  constructor(
    readonly call: Call,
    readonly place: Place,
    readonly books: Books,
  ) {
    let [resolve, reject]: [(result: Given) => void, (error: unknown) => void] = [nothing, nothing];
    this.promise = new Promise((...both) => ([resolve, reject] = both));
    [this.#resolve, this.#reject] = [resolve, reject];
    if (call.signal) this.#unwatch = watchAbort(call.signal, this);
  }

  /** Checks again what user code may have changed, and leases the tensors that are used in place. */
  ready(): void {
    const { call, place } = this;
    checkShapes(call, place, call.tokens);
    if (call.signal && isAborted(call.signal)) throw abortError(reasonOf(call.signal));
    this.#release = lease(call, place);
  }

  started(ticket: number): void {
    this.ticket = ticket;
    this.books.begin();
  }

  /** It was never queued. */
  fail(error: unknown): void {
    this.#unwatch();
    this.release();
    this.#reject(error);
    failed(this.place.device, operationOf(this.call), error);
  }

  release(): void {
    this.#release();
    this.#release = nothing;
  }

  /** For native code to call, once. */
  readonly settle: Settle = (error, tokens) => {
    this.books.end();
    this.#unwatch();
    if (!this.held) this.release();
    try {
      if (error)
        throw (error as InfiniError).code === 'ABORT_ERR' ? abortError(reasonOf(this.call.signal)) : error;
      const segments = this.books.committed(tokens);
      this.#resolve(this.#result());
      const { call, place } = this;
      if (call.k) attended(place.device, this.#began, call.tokens, segments);
    } catch (failure) {
      this.#reject(failure);
      failed(this.place.device, operationOf(this.call), failure);
    }
  };

  #result(): Given {
    const { place } = this;
    const { out, tokens } = this.call;
    if (out.inside) return out.given;
    const detached = isDetached(out.given as Tensor);
    if (!detached && out.placement(place.device)) return out.given;
    const target = detached ? newOutput(place, tokens) : (out.given as Tensor);
    native.take(target);
    return target;
  }
}

/** Queues one call. */
export function submit(job: Job, start: (job: Job) => number): Promise<Given> {
  try {
    job.ready();
    job.started(start(job));
  } catch (error) {
    job.fail(error);
  }
  return job.promise;
}

/** Runs one call on this thread; `count` is told once it has taken effect, and answers as {@link Books.committed} does. */
export function runNow(call: Call, place: Place, run: () => void, count: () => number): Given {
  const began = begin();
  try {
    const release = lease(call, place);
    try {
      run();
    } finally {
      release();
    }
  } catch (error) {
    failed(place.device, operationOf(call), error);
    throw error;
  }
  const segments = count();
  if (call.k) attended(place.device, began, call.tokens, segments);
  return call.out.given;
}

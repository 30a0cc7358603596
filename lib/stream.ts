import { checkSignal, isAborted, reasonOf, watchAbort } from './abort';
import { freezeConfig, readRecord } from './config';
import { abortError, fail, type InfiniError } from './errors';
import { type NativeStream, native, type Settle } from './native';
import { checkOutBuffer, checkShapes, checkTypes, isDetached, newTensor, unshare } from './tensor';
import type {
  AttendInput,
  AttendOptions,
  ResolvedConfig,
  RetrieveInput,
  RetrieveOptions,
  SyncOptions,
  Tensor,
} from './types';

/** One call, checked: what to run and where its result goes. */
interface Call {
  q: Tensor;
  k?: Tensor;
  v?: Tensor;
  out: Tensor;
  tokens: number;
  signal: AbortSignal | undefined;
}

const attendKeys = new Set(['q', 'k', 'v']);
const retrieveKeys = new Set(['q']);
const asyncKeys = new Set(['out', 'signal']);
const syncKeys = new Set(['out']);

// Only this file makes streams: `new MemoryStream()` by anyone else has no key.
const key = Symbol('infini-stream stream');

/** For lib/device.ts. */
export let adoptStream: (handle: NativeStream) => MemoryStream;

/**
 * An unbounded sequence of tokens in constant memory (Infini-attention, Munkhdalai et al. 2024, arXiv 2404.07143).
 * Made by `device.createStream`.
 *
 * Calls take effect in call order. While an asynchronous call is pending, `attendSync`, `retrieveSync`, `memory`,
 * `reset` and `fork` throw ERR_BUSY; `close` is always allowed. A call that fails for any reason leaves the stream
 * bit for bit as it was. Results do not depend on how tokens are split among calls, nor on the number of threads.
 */
export class MemoryStream {
  readonly #native: NativeStream;
  readonly #config: ResolvedConfig;
  #tokens = 0;
  #pending = 0;

  static {
    adoptStream = (handle) => new MemoryStream(key, handle);
  }

  private constructor(secret: symbol, handle: NativeStream) {
    if (secret !== key)
      throw fail('ERR_INVALID_ARG_TYPE', 'Expected MemoryStream to be made by device.createStream()');
    this.#native = handle;
    this.#config = freezeConfig(native.streamConfig(handle));
  }

  static #check(receiver: unknown, method: string): asserts receiver is MemoryStream {
    if (typeof receiver !== 'object' || receiver === null || !(#native in receiver)) {
      throw fail('ERR_INVALID_ARG_TYPE', `Expected a MemoryStream as the receiver of ${method}`);
    }
  }

  /** The configuration with every default filled in; deeply frozen. */
  get config(): Readonly<ResolvedConfig> {
    MemoryStream.#check(this, 'config');
    return this.#config;
  }

  /** Tokens committed by the calls that have settled. */
  get tokens(): number {
    MemoryStream.#check(this, 'tokens');
    return this.#tokens;
  }

  /** Segments absorbed into the memory: floor(tokens / segmentLength). */
  get segments(): number {
    MemoryStream.#check(this, 'segments');
    return Math.floor(this.#tokens / this.#config.segmentLength);
  }

  /**
   * Bytes of state, the same for ever:
   * kvHeads (headDim valueDim 4 + headDim 8 + segmentLength (headDim + valueDim) sizeof(dtype)), rounded up to 64.
   */
  get byteLength(): number {
    MemoryStream.#check(this, 'byteLength');
    return native.byteLength(this.#native);
  }

  get closed(): boolean {
    MemoryStream.#check(this, 'closed');
    return native.streamClosed(this.#native);
  }

  /**
   * Appends tokens and returns their outputs, `[tokens, heads, valueDim]`:
   * sigmoid(beta) A_mem + (1 - sigmoid(beta)) A_dot, eq. (10). The work runs on the device's own threads. The inputs
   * are copied before this returns (0.1 to 0.3 ms per MB on the calling thread) and are the caller's again at once.
   *
   * Never throws; rejects with ERR_CLOSED, ERR_INVALID_ARG_TYPE, ERR_DTYPE, ERR_SHAPE, ABORT_ERR, ERR_NON_FINITE
   * (with `tensor` and `token`), ERR_OUT_OF_MEMORY or ERR_DEVICE, looked for in this order.
   */
  attend(input: AttendInput, options?: AttendOptions): Promise<Tensor> {
    try {
      MemoryStream.#check(this, 'attend');
      const call = this.#checkCall(input, attendKeys, options, asyncKeys);
      return this.#submit(call, (settle) =>
        native.attend(this.#native, call.q, call.k as Tensor, call.v as Tensor, settle),
      );
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * {@link attend} on the calling thread, for small steps: a token or a few.
   * @throws as attend rejects, and ERR_BUSY while an asynchronous call is pending.
   */
  attendSync(input: AttendInput, options?: SyncOptions): Tensor {
    MemoryStream.#check(this, 'attendSync');
    const { q, k, v, out, tokens } = this.#checkCall(input, attendKeys, options, syncKeys);
    this.#checkIdle('attendSync');
    native.attendSync(this.#native, unshare(q), unshare(k as Tensor), unshare(v as Tensor), out);
    this.#tokens += tokens;
    return out;
  }

  /**
   * A_mem alone, ungated, for any number of queries, from the absorbed segments: eq. (7). Changes nothing; zeros
   * while nothing is absorbed. Rejects as {@link attend} does.
   */
  retrieve(input: RetrieveInput, options?: RetrieveOptions): Promise<Tensor> {
    try {
      MemoryStream.#check(this, 'retrieve');
      const call = this.#checkCall(input, retrieveKeys, options, asyncKeys);
      return this.#submit(call, (settle) => native.retrieve(this.#native, call.q, settle));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** {@link retrieve} on the calling thread. @throws as attendSync. */
  retrieveSync(input: RetrieveInput, options?: SyncOptions): Tensor {
    MemoryStream.#check(this, 'retrieveSync');
    const { q, out } = this.#checkCall(input, retrieveKeys, options, syncKeys);
    this.#checkIdle('retrieveSync');
    native.retrieveSync(this.#native, unshare(q), out);
    return out;
  }

  /**
   * Copies of the memory: M `[kvHeads, headDim, valueDim]` and z `[kvHeads, headDim]`.
   * @throws ERR_CLOSED, ERR_BUSY.
   */
  memory(): { matrix: Float32Array; normalizer: Float64Array } {
    MemoryStream.#check(this, 'memory');
    this.#checkOpen();
    this.#checkIdle('memory');
    const { kvHeads, headDim, valueDim } = this.#config;
    const matrix = new Float32Array(kvHeads * headDim * valueDim);
    const normalizer = new Float64Array(kvHeads * headDim);
    native.memory(this.#native, matrix, normalizer);
    return { matrix, normalizer };
  }

  /** Back to the empty stream. @throws ERR_CLOSED, ERR_BUSY. */
  reset(): void {
    MemoryStream.#check(this, 'reset');
    this.#checkOpen();
    this.#checkIdle('reset');
    native.reset(this.#native);
    this.#tokens = 0;
  }

  /** An independent stream in the same state. @throws ERR_CLOSED, ERR_BUSY, ERR_OUT_OF_MEMORY. */
  fork(): MemoryStream {
    MemoryStream.#check(this, 'fork');
    this.#checkOpen();
    this.#checkIdle('fork');
    const copy = new MemoryStream(key, native.fork(this.#native));
    copy.#tokens = this.#tokens;
    return copy;
  }

  /** Frees the state; pending calls reject with ERR_CLOSED. Idempotent. */
  close(): void {
    MemoryStream.#check(this, 'close');
    native.closeStream(this.#native);
  }

  [Symbol.dispose](): void {
    MemoryStream.#check(this, '[Symbol.dispose]');
    native.closeStream(this.#native);
  }

  #checkOpen(): void {
    if (native.streamClosed(this.#native))
      throw fail('ERR_CLOSED', 'Expected an open stream but it is closed');
  }

  #checkIdle(method: string): void {
    if (this.#pending > 0) {
      throw fail(
        'ERR_BUSY',
        `Expected no pending call for ${method}() but ${this.#pending} have not settled`,
      );
    }
  }

  // Everything user code could intercept is read once, first; then closed, types, dtype, shape, signal.
  #checkCall(input: unknown, inputKeys: Set<string>, options: unknown, optionKeys: Set<string>): Call {
    this.#checkOpen();
    const tensors = readRecord(input, 'input', inputKeys);
    const { out, signal: givenSignal } = readRecord(
      options === undefined ? {} : options,
      'options',
      optionKeys,
    );
    const named = [...inputKeys].map((name): [string, unknown] => [`input.${name}`, tensors[name]]);
    if (out !== undefined) named.push(['options.out', out]);
    const signal = checkSignal(givenSignal);
    checkOutBuffer(out);
    checkTypes(named, this.#config.dtype);
    const { q, k, v } = tensors as { q: Tensor; k?: Tensor; v?: Tensor };
    const tokens = checkShapes(this.#config, { q, k, v }, out as Tensor | undefined);
    if (signal && isAborted(signal)) throw abortError(reasonOf(signal));
    this.#checkOpen(); // a getter may have closed it
    return { q, k, v, out: (out as Tensor | undefined) ?? this.#newOutput(tokens), tokens, signal };
  }

  #newOutput(tokens: number): Tensor {
    return newTensor(this.#config.dtype, tokens * this.#config.heads * this.#config.valueDim);
  }

  #submit(call: Call, start: (settle: Settle) => number): Promise<Tensor> {
    const { out, tokens, signal } = call;
    return new Promise((resolve, reject) => {
      let ticket = 0;
      const unwatch = signal ? watchAbort(signal, () => native.cancel(this.#native, ticket)) : () => {};
      const settle: Settle = (error, committed) => {
        this.#pending--;
        try {
          unwatch();
          if (error) throw (error as InfiniError).code === 'ABORT_ERR' ? abortError(reasonOf(signal)) : error;
          this.#tokens = committed;
          const target = isDetached(out) ? this.#newOutput(tokens) : out;
          native.take(target);
          resolve(target);
        } catch (failure) {
          reject(failure);
        }
      };
      try {
        if (signal) checkShapes(this.#config, call, out); // a trap of the signal may have resized an input
        ticket = start(settle);
      } catch (failure) {
        unwatch();
        throw failure;
      }
      this.#pending++;
    });
  }
}

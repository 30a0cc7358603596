import type { AttendInput, AttendOptions, RetrieveInput, RetrieveOptions, SyncOptions } from './calls';
import { checkRecord } from './config';
import type { DeviceTensor } from './device-tensor';
import { failed } from './diagnostics';
import { fail } from './errors';
import { type Call, checkCall, Job, operandsOf, runNow, steadyOperandsOf, submit } from './job';
import { type NativeDevice, type NativeStream, native } from './native';
import { type Given, Operand } from './operands';
import { snapshotStream } from './snapshot/stream';
import { StreamCore } from './stream-core';
import { type AttendTransform, makeTransform } from './transform';
import { checkSegmentBorder, type Transition, transitionFromEmpty } from './transition/transition';
import type { ResolvedConfig, Tensor } from './types';

const attendKeys = new Set(['q', 'k', 'v']);
const retrieveKeys = new Set(['q']);
const asyncKeys = new Set(['out', 'signal']);
const syncKeys = new Set(['out']);

// Only this file makes streams: `new MemoryStream()` by anyone else has no key.
const key = Symbol('infini-stream stream');

/** For those who make the native stream: on a device of this id, after so many tokens. */
export let adoptStream: (
  handle: NativeStream,
  device: string,
  home: NativeDevice,
  tokens?: number,
) => MemoryStream;
/** For batches; undefined for everything else than a stream. */
export let coreOf: (stream: unknown) => StreamCore | undefined;

/**
 * An unbounded sequence of tokens in constant memory (Infini-attention, Munkhdalai et al. 2024, arXiv 2404.07143).
 * Made by `device.createStream`.
 *
 * Calls take effect in call order. While an asynchronous call is pending, `attendSync`, `retrieveSync`, `memory`,
 * `reset` and `fork` throw ERR_BUSY; `close` is always allowed. A call that fails for any reason leaves the stream
 * bit for bit as it was. How tokens are split among calls changes no bit on the CPU; on CUDA none of the memory, and
 * outputs within their accuracy (README). Threads and other streams change none anywhere.
 */
export class MemoryStream {
  readonly #core: StreamCore;

  static {
    adoptStream = (...made) => new MemoryStream(key, new StreamCore(...made));
    coreOf = (stream) =>
      typeof stream === 'object' && stream !== null && #core in stream ? stream.#core : undefined;
  }

  private constructor(secret: symbol, core: StreamCore) {
    if (secret !== key)
      throw fail('ERR_INVALID_ARG_TYPE', 'Expected MemoryStream to be made by device.createStream()');
    this.#core = core;
  }

  static #of(receiver: unknown, method: string): StreamCore {
    const core = coreOf(receiver);
    if (core) return core;
    throw fail('ERR_INVALID_ARG_TYPE', `Expected a MemoryStream as the receiver of ${method}`);
  }

  /** The configuration with every default filled in; deeply frozen. */
  get config(): Readonly<ResolvedConfig> {
    return MemoryStream.#of(this, 'config').config;
  }

  /** Tokens committed by the calls that have settled. */
  get tokens(): number {
    return MemoryStream.#of(this, 'tokens').tokens;
  }

  /** Segments absorbed into the memory: floor(tokens / segmentLength). */
  get segments(): number {
    const { tokens, config } = MemoryStream.#of(this, 'segments');
    return Math.floor(tokens / config.segmentLength);
  }

  /**
   * Bytes of state, the same for ever:
   * kvHeads (headDim valueDim 4 + headDim 8 + segmentLength (headDim + valueDim) sizeof(dtype)), each part rounded up
   * to 64 bytes, or on CUDA 256.
   */
  get byteLength(): number {
    return native.byteLength(MemoryStream.#of(this, 'byteLength').native);
  }

  /** Whether {@link close} was called, on it or on its device. */
  get closed(): boolean {
    return native.streamClosed(MemoryStream.#of(this, 'closed').native);
  }

  /**
   * Appends tokens and returns their outputs, `[tokens, heads, valueDim]`:
   * sigmoid(beta) A_mem + (1 - sigmoid(beta)) A_dot, eq. (10). The work runs on the device's own threads. Arrays are
   * copied before this returns (0.1 to 0.3 ms per MB on the calling thread) and are the caller's again at once; device
   * tensors and arrays in host buffers are used in place, and leased until the promise settles.
   *
   * Never throws; rejects with ERR_CLOSED, ERR_INVALID_ARG_TYPE (also for another device's tensor), ERR_CLOSED (a
   * tensor), ERR_DTYPE, ERR_SHAPE, ABORT_ERR, ERR_BUSY (a tensor that a pending call uses, or both input and `out` of
   * this one), ERR_NON_FINITE (with `tensor` and `token`), ERR_OUT_OF_MEMORY or ERR_DEVICE, looked for in this order.
   */
  attend(
    input: AttendInput,
    options: AttendOptions<DeviceTensor> & { out: DeviceTensor },
  ): Promise<DeviceTensor>;
  attend(input: AttendInput, options?: AttendOptions): Promise<Tensor>;
  attend(input: AttendInput, options?: AttendOptions<Tensor | DeviceTensor>): Promise<Tensor | DeviceTensor>;
  attend(input: AttendInput, options?: AttendOptions<Tensor | DeviceTensor>): Promise<Tensor | DeviceTensor> {
    try {
      const core = MemoryStream.#of(this, 'attend');
      const job = new Job(readCall(core, input, attendKeys, options, asyncKeys), core, core);
      return submit(job, () => native.attend(core.native, ...operandsOf(job.call, core.device), job.settle));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * {@link attend} on the calling thread, for small steps: a token or a few.
   * @throws as attend rejects, and ERR_BUSY while an asynchronous call is pending.
   */
  attendSync(input: AttendInput, options: SyncOptions<DeviceTensor> & { out: DeviceTensor }): DeviceTensor;
  attendSync(input: AttendInput, options?: SyncOptions): Tensor;
  attendSync(input: AttendInput, options?: SyncOptions<Tensor | DeviceTensor>): Tensor | DeviceTensor;
  attendSync(input: AttendInput, options?: SyncOptions<Tensor | DeviceTensor>): Tensor | DeviceTensor {
    const core = MemoryStream.#of(this, 'attendSync');
    const call = readCall(core, input, attendKeys, options, syncKeys);
    core.checkIdle('attendSync');
    const run = () => native.attendSync(core.native, ...steadyOperandsOf(call, core.device));
    return runNow(call, core, run, () => core.committed(core.tokens + call.tokens));
  }

  /**
   * A_mem alone, ungated, for any number of queries, from the absorbed segments: eq. (7). Changes nothing; zeros
   * while nothing is absorbed. Rejects as {@link attend} does.
   */
  retrieve(
    input: RetrieveInput,
    options: RetrieveOptions<DeviceTensor> & { out: DeviceTensor },
  ): Promise<DeviceTensor>;
  retrieve(input: RetrieveInput, options?: RetrieveOptions): Promise<Tensor>;
  retrieve(
    input: RetrieveInput,
    options?: RetrieveOptions<Tensor | DeviceTensor>,
  ): Promise<Tensor | DeviceTensor>;
  retrieve(
    input: RetrieveInput,
    options?: RetrieveOptions<Tensor | DeviceTensor>,
  ): Promise<Tensor | DeviceTensor> {
    try {
      const core = MemoryStream.#of(this, 'retrieve');
      const job = new Job(readCall(core, input, retrieveKeys, options, asyncKeys), core, core);
      const { q, out } = job.call;
      const start = () =>
        native.retrieve(core.native, q.native(core.device), out.filled(core.device), job.settle);
      return submit(job, start);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** {@link retrieve} on the calling thread. @throws as attendSync. */
  retrieveSync(
    input: RetrieveInput,
    options: SyncOptions<DeviceTensor> & { out: DeviceTensor },
  ): DeviceTensor;
  retrieveSync(input: RetrieveInput, options?: SyncOptions): Tensor;
  retrieveSync(input: RetrieveInput, options?: SyncOptions<Tensor | DeviceTensor>): Tensor | DeviceTensor;
  retrieveSync(input: RetrieveInput, options?: SyncOptions<Tensor | DeviceTensor>): Tensor | DeviceTensor {
    const core = MemoryStream.#of(this, 'retrieveSync');
    const call = readCall(core, input, retrieveKeys, options, syncKeys);
    core.checkIdle('retrieveSync');
    const { q, out } = call;
    const run = () => native.retrieveSync(core.native, q.steady(core.device), out.native(core.device));
    return runNow(call, core, run, () => 0);
  }

  /**
   * For Web Streams: `readable.pipeThrough(stream.transform())`. Inputs of attend go into `writable`, one output comes
   * out of `readable` for each. One input and one output wait at most, so that a slow reader holds back the writer.
   * An abort of the writable or a cancelled readable aborts the pending call; an error of a call errors both, typed.
   * The stream itself stays open, and other calls may take turns with those of the transform.
   */
  transform(): AttendTransform {
    MemoryStream.#of(this, 'transform');
    return makeTransform((input, options) => this.attend(input, options));
  }

  /**
   * Copies of the memory: M `[kvHeads, headDim, valueDim]` and z `[kvHeads, headDim]`.
   * @throws ERR_CLOSED, ERR_BUSY, ERR_DEVICE.
   */
  memory(): { matrix: Float32Array; normalizer: Float64Array } {
    const core = MemoryStream.#of(this, 'memory');
    core.checkOpen();
    core.checkIdle('memory');
    return core.memory();
  }

  /**
   * What the tokens of this stream do to a memory (docs/serving.md). For the linear rule that is the same whatever came
   * before them. For the delta rule it depends on that: this is the transition of a text's beginning, and that of a
   * later part is recorded by `device.createRecorder`.
   * @throws ERR_CLOSED, ERR_BUSY, ERR_OUT_OF_RANGE (a segment is open), ERR_DEVICE.
   */
  exportTransition(): Transition {
    const core = MemoryStream.#of(this, 'exportTransition');
    core.checkOpen();
    core.checkIdle('exportTransition');
    checkSegmentBorder('stream', core.tokens, core.config.segmentLength);
    return transitionFromEmpty(core.config, core.tokens, core.memory());
  }

  /** Back to the empty stream. @throws ERR_CLOSED, ERR_BUSY, ERR_DEVICE. */
  reset(): void {
    const core = MemoryStream.#of(this, 'reset');
    core.checkOpen();
    core.checkIdle('reset');
    native.reset(core.native);
    core.tokens = 0;
  }

  /** An independent stream in the same state. @throws ERR_CLOSED, ERR_BUSY, ERR_OUT_OF_MEMORY, ERR_DEVICE. */
  fork(): MemoryStream {
    const core = MemoryStream.#of(this, 'fork');
    core.checkOpen();
    core.checkIdle('fork');
    return adoptStream(native.fork(core.native), core.device, core.home, core.tokens);
  }

  /**
   * The whole state as the bytes of a safetensors file: configuration, counters, z and M (`normalizer`, `matrix`), the open
   * segment's `keys` and `values`. The same on every device and little-endian; `device.restore` makes a stream of them. A
   * call like {@link attend}: it takes effect in call order and copies the state, about `byteLength` bytes, once.
   *
   * Never throws; rejects with ERR_CLOSED, ERR_INVALID_ARG_TYPE (receiver), ERR_OUT_OF_MEMORY, ERR_DEVICE.
   */
  async snapshot(): Promise<Uint8Array> {
    return snapshotStream(MemoryStream.#of(this, 'snapshot'));
  }

  /** Frees the state; pending calls reject with ERR_CLOSED, and batches of this stream close. Idempotent. */
  close(): void {
    native.closeStream(MemoryStream.#of(this, 'close').native);
  }

  [Symbol.dispose](): void {
    native.closeStream(MemoryStream.#of(this, '[Symbol.dispose]').native);
  }
}

function readCall(...given: Parameters<typeof readGiven>): Call {
  try {
    return readGiven(...given);
  } catch (error) {
    const [{ device }, , keys] = given;
    failed(device, keys === attendKeys ? 'attend' : 'retrieve', error);
    throw error;
  }
}

/** Everything user code could intercept is read once, first; then closed, types, dtype, shape, signal. */
function readGiven(
  core: StreamCore,
  input: unknown,
  inputKeys: Set<string>,
  options: unknown,
  optionKeys: Set<string>,
): Call {
  core.checkOpen();
  const tensors = checkRecord(input, 'input', inputKeys);
  const operand = (key: string) => new Operand('input.', key, tensors[key] as Given);
  const q = operand('q');
  const [k, v] = inputKeys.has('k') ? [operand('k'), operand('v')] : [];
  const given = options === undefined ? {} : checkRecord(options, 'options', optionKeys);
  const { out } = given;
  const signal = optionKeys.has('signal') ? given.signal : undefined;
  const operands = {
    q,
    k,
    v,
    out: out === undefined ? undefined : new Operand('options.', 'out', out as Given),
  };
  const call = checkCall(operands, signal, core);
  core.checkOpen(); // a getter may have closed it
  return call;
}

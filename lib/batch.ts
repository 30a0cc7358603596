import type { BatchOptions, StepInput } from './calls';
import { checkArray, checkRecord } from './config';
import type { DeviceTensor } from './device-tensor';
import { expected, fail } from './errors';
import { type Books, type Call, checkCall, Job, operandsOf, runNow, steadyOperandsOf, submit } from './job';
import { type NativeBatch, type NativeDevice, native } from './native';
import { type Place, readOperands } from './operands';
import { coreOf, type MemoryStream } from './stream';
import type { StreamCore } from './stream-core';
import type { ResolvedConfig, Tensor } from './types';

const mostStreams = 4096;
const inputKeys = new Set(['q', 'k', 'v', 'out']);
const asyncKeys = new Set(['signal']);
const syncKeys = new Set<string>();

// Only this file makes batches: `new Batch()` by anyone else has no key.
const key = Symbol('infini-stream batch');

/** For lib/device.ts. */
export let makeBatch: (handle: NativeDevice, device: string, streams: unknown) => Batch;

type NoOptions = Record<string, never>;

/** What a Batch is made of. Its calls count as calls of every one of its streams. */
class BatchCore implements Place, Books {
  readonly config: ResolvedConfig;

  constructor(
    readonly native: NativeBatch,
    readonly device: string,
    readonly streams: readonly MemoryStream[], // held here, so that they are not collected before the batch
    readonly cores: readonly StreamCore[],
  ) {
    this.config = cores[0].config;
  }

  begin(): void {
    for (const core of this.cores) core.pending++;
  }

  end(): void {
    for (const core of this.cores) core.pending--;
  }

  committed(): number {
    let segments = 0;
    for (const core of this.cores) segments += core.committed(core.tokens + 1);
    return segments;
  }

  checkOpen(): void {
    if (native.batchClosed(this.native))
      throw fail('ERR_CLOSED', 'Expected an open batch but it, or a stream in it, is closed');
  }
}

/**
 * Streams that step together: one token each, all or nothing. Made by `device.createBatch`; each output is bit for
 * bit that of the same token given to the stream alone.
 *
 * A pending step is a pending call of every stream in it: steps and the streams' own calls take effect in call
 * order. The batch closes when one of its streams does.
 */
export class Batch {
  readonly #core: BatchCore;

  static {
    makeBatch = (handle, device, given) => {
      const length = checkArray(given, 'streams', 1, mostStreams);
      const streams = Array.from({ length }, (_, i) => (given as unknown[])[i]);
      const cores = checkStreams(streams, device);
      const batch = native.createBatch(
        handle,
        cores.map((core) => core.native),
      );
      return new Batch(key, new BatchCore(batch, device, Object.freeze(streams as MemoryStream[]), cores));
    };
  }

  private constructor(secret: symbol, core: BatchCore) {
    if (secret !== key)
      throw fail('ERR_INVALID_ARG_TYPE', 'Expected Batch to be made by device.createBatch()');
    this.#core = core;
  }

  static #of(receiver: unknown, method: string): BatchCore {
    if (typeof receiver === 'object' && receiver !== null && #core in receiver) return receiver.#core;
    throw fail('ERR_INVALID_ARG_TYPE', `Expected a Batch as the receiver of ${method}`);
  }

  /** In the order of the packed tensors; frozen. */
  get streams(): readonly MemoryStream[] {
    return Batch.#of(this, 'streams').streams;
  }

  /** The number of streams. */
  get size(): number {
    return Batch.#of(this, 'size').streams.length;
  }

  /** Whether it, or a stream in it, was closed. */
  get closed(): boolean {
    return native.batchClosed(Batch.#of(this, 'closed').native);
  }

  /**
   * Appends one token to each stream and returns their outputs, `[streams, heads, valueDim]`: in `input.out`, or in a
   * new array. When one stream's token fails, none is appended anywhere; the error's `stream` is its index.
   *
   * Never throws; rejects as `stream.attend` does, with ERR_CLOSED when the batch or a stream in it is closed.
   */
  step(input: StepInput<DeviceTensor> & { out: DeviceTensor }, options?: BatchOptions): Promise<DeviceTensor>;
  step(input: StepInput, options?: BatchOptions): Promise<Tensor>;
  step(input: StepInput<Tensor | DeviceTensor>, options?: BatchOptions): Promise<Tensor | DeviceTensor>;
  step(input: StepInput<Tensor | DeviceTensor>, options?: BatchOptions): Promise<Tensor | DeviceTensor> {
    try {
      const core = Batch.#of(this, 'step');
      const job = new Job(readStep(core, input, options, asyncKeys), core, core);
      const start = () => native.step(core.native, ...operandsOf(job.call, core.device), job.settle);
      return submit(job, start);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * {@link step} on the calling thread.
   * @throws as step rejects, and ERR_BUSY while an asynchronous call of a stream in the batch is pending.
   */
  stepSync(input: StepInput<DeviceTensor> & { out: DeviceTensor }, options?: NoOptions): DeviceTensor;
  stepSync(input: StepInput, options?: NoOptions): Tensor;
  stepSync(input: StepInput<Tensor | DeviceTensor>, options?: NoOptions): Tensor | DeviceTensor;
  stepSync(input: StepInput<Tensor | DeviceTensor>, options?: NoOptions): Tensor | DeviceTensor {
    const core = Batch.#of(this, 'stepSync');
    const call = readStep(core, input, options, syncKeys);
    for (const stream of core.cores) stream.checkIdle('stepSync');
    const run = () => native.stepSync(core.native, ...steadyOperandsOf(call, core.device));
    return runNow(call, core, run, () => core.committed());
  }

  /** Pending steps reject with ERR_CLOSED; the streams stay open. Idempotent. */
  close(): void {
    native.closeBatch(Batch.#of(this, 'close').native);
  }

  [Symbol.dispose](): void {
    native.closeBatch(Batch.#of(this, '[Symbol.dispose]').native);
  }
}

function checkStreams(streams: readonly unknown[], device: string): StreamCore[] {
  const cores = streams.map((stream, index) => {
    const core = coreOf(stream);
    if (!core) throw expected('ERR_INVALID_ARG_TYPE', `streams[${index}]`, 'a MemoryStream', stream);
    core.checkDevice(device, `streams[${index}]`);
    return core;
  });
  const seen = new Set<StreamCore>();
  for (const [index, core] of cores.entries()) {
    if (seen.has(core))
      throw fail('ERR_BUSY', `Expected distinct streams but "streams[${index}]" occurs twice`);
    seen.add(core);
  }
  return cores;
}

/** As readCall of a stream. */
function readStep(core: BatchCore, input: unknown, options: unknown, optionKeys: Set<string>): Call {
  core.checkOpen();
  const { q, k, v, out } = checkRecord(input, 'input', inputKeys);
  const given = options === undefined ? {} : checkRecord(options, 'options', optionKeys);
  const signal = optionKeys.has('signal') ? given.signal : undefined;
  const call = checkCall(readOperands('input.', q, k, v, out), signal, core, core.streams.length);
  core.checkOpen(); // a getter may have closed it
  return call;
}

import { types } from 'node:util';
import { checkSignal, isAborted, reasonOf } from '../abort';
import type { AttendInput } from '../calls';
import { checkRecord, readConfig, readRecord } from '../config';
import { abortError, expected, fail } from '../errors';
import { type NativeDevice, native } from '../native';
import { adoptStream } from '../stream';
import { checkClass, lengthOf } from '../tensor';
import type { ResolvedConfig, Tensor } from '../types';
import { type Columns, closeColumns, inputOf, makeColumns } from './columns';
import { columnsOf } from './matrix';
import { checkSegmentBorder, readNormalizer, shapeOf, type Transition } from './transition';

export interface RecorderOptions {
  /**
   * z of all tokens before the part, `[kvHeads, headDim]`, for the delta rule; the linear rule does without. Default:
   * zeros, for the beginning of a text.
   */
  normalizer?: Float64Array;
}

export interface AbsorbInput {
  /** Keys, `[tokens, kvHeads, headDim]`. */
  k: Tensor;
  /** Values, `[tokens, kvHeads, valueDim]`. */
  v: Tensor;
}

export interface AbsorbOptions {
  /** Aborts the call: it rejects with ABORT_ERR and the recorder stays as it was before it. */
  signal?: AbortSignal;
}

const optionKeys = new Set(['normalizer']);
const inputKeys = new Set(['k', 'v']);
const absorbKeys = new Set(['signal']);

// Only this file makes recorders: `new Recorder()` by anyone else has no key.
const key = Symbol('infini-stream recorder');

/** For lib/device.ts. */
export let makeRecorder: (home: NativeDevice, device: string, config: unknown, options: unknown) => Recorder;

/**
 * Records what part of a text does to a memory. Made by `device.createRecorder`.
 *
 * A segment changes every column of M by itself, and in the same affine way; so A and B come out of streams like any
 * other: [B | A] is what becomes of the memory [0 | I] when the values are [V | 0]. Columns beyond the 256 that a stream
 * may have go to a second one.
 */
export class Recorder {
  /** The configuration it was made with, with every default filled in; deeply frozen. */
  readonly config: Readonly<ResolvedConfig>;
  readonly #before: Float64Array | null;
  /** Tokens of the streams before the part: the native state of a used memory. */
  readonly #start: number;
  #columns: readonly Columns[];
  /** What takes their place when the call at work has succeeded. */
  #next: Columns[] = [];
  /** Calls that have not settled; they take effect one after another. */
  #pending = 0;
  #last: Promise<unknown> = Promise.resolve();

  static {
    makeRecorder = (home, device, config, options) => new Recorder(key, home, device, config, options);
  }

  private constructor(secret: symbol, home: NativeDevice, device: string, config: unknown, options: unknown) {
    if (secret !== key)
      throw fail('ERR_INVALID_ARG_TYPE', 'Expected Recorder to be made by device.createRecorder()');
    this.config = resolve(home, device, config);
    const { normalizer } = readRecord(options, 'options', optionKeys);
    const { kvHeads, headDim, segmentLength, rule } = this.config;
    const z =
      normalizer === undefined
        ? new Float64Array(kvHeads * headDim)
        : readNormalizer(normalizer, 'options.normalizer', this.config);
    this.#before = rule === 'delta' ? z : null;
    const later = rule === 'delta' && z.some((sum) => sum > 0);
    this.#start = later ? segmentLength : 0;
    this.#columns = makeColumns({ home, device, config: this.config }, this.#start, later ? z : null);
  }

  static #check(receiver: unknown, method: string): asserts receiver is Recorder {
    if (typeof receiver === 'object' && receiver !== null && #columns in receiver) return;
    throw fail('ERR_INVALID_ARG_TYPE', `Expected a Recorder as the receiver of ${method}`);
  }

  /** Tokens recorded by the calls that have settled. */
  get tokens(): number {
    Recorder.#check(this, 'tokens');
    return this.#columns[0].stream.tokens - this.#start;
  }

  /** Whether {@link close} was called, on it or on its device. */
  get closed(): boolean {
    Recorder.#check(this, 'closed');
    return this.#columns[0].stream.closed;
  }

  /**
   * Appends tokens of the part. There are no queries and no output: what the part's tokens read is known when the parts
   * before it are. Arrays are copied before this returns. Calls take effect in call order; one that fails changes nothing.
   *
   * Never throws; rejects with ERR_CLOSED, ERR_INVALID_ARG_TYPE, ERR_DTYPE, ERR_SHAPE, ABORT_ERR, ERR_NON_FINITE,
   * ERR_OUT_OF_MEMORY or ERR_DEVICE.
   */
  absorb(input: AbsorbInput, options?: AbsorbOptions): Promise<void> {
    try {
      Recorder.#check(this, 'absorb');
      this.#checkOpen();
      const { k, v } = readInput(input, this.config);
      const { signal: given } = options === undefined ? {} : checkRecord(options, 'options', absorbKeys);
      const signal = checkSignal(given);
      if (signal && isAborted(signal)) throw abortError(reasonOf(signal));
      this.#checkOpen(); // a getter may have closed it
      const inputs = this.#columns.map((columns) => inputOf(k, v, columns, this.config));
      this.#pending++;
      const done = this.#last.then(() => this.#append(inputs, signal)).finally(() => this.#pending--);
      this.#last = done.catch(() => {});
      return done;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** All columns or none. Of two streams forks absorb, and take their places when both have. */
  async #append(inputs: AttendInput[], signal: AbortSignal | undefined): Promise<void> {
    const options = signal && { signal };
    if (inputs.length === 1) {
      await this.#columns[0].stream.attend(inputs[0], options);
      return;
    }
    const next: Columns[] = [];
    this.#next = next;
    try {
      for (const columns of this.#columns) next.push({ ...columns, stream: columns.stream.fork() });
      await Promise.all(next.map(({ stream }, i) => stream.attend(inputs[i], options)));
      this.#checkOpen();
    } catch (error) {
      closeColumns(next);
      throw error;
    }
    closeColumns(this.#columns);
    this.#columns = next;
  }

  /**
   * What the tokens absorbed so far do to a memory.
   * @throws ERR_CLOSED, ERR_BUSY (a pending call), ERR_OUT_OF_RANGE (a segment is open), ERR_DEVICE.
   */
  exportTransition(): Transition {
    Recorder.#check(this, 'exportTransition');
    this.#checkOpen();
    if (this.#pending > 0)
      throw fail(
        'ERR_BUSY',
        `Expected no pending call for exportTransition() but ${this.#pending} have not settled`,
      );
    const { tokens, config } = this;
    checkSegmentBorder('recorder', tokens, config.segmentLength);
    const { valueDim } = config;
    const before = this.#before;
    const { stream, to } = this.#columns[0];
    const { matrix, normalizer } = stream.memory();
    return {
      ...shapeOf(config),
      tokens,
      A: this.#start > 0 ? this.#identityColumns() : null,
      B: columnsOf(matrix, to, 0, valueDim),
      normalizer: normalizer.map((sum, i) => sum - (before?.[i] ?? 0)),
      before: before && new Float64Array(before),
    };
  }

  /** What has become of the columns of the identity: the last ones. */
  #identityColumns(): Float32Array {
    const { stream, from, to } = this.#columns.at(-1) as Columns;
    return columnsOf(stream.memory().matrix, to - from, this.config.valueDim - from, to - from);
  }

  /** Frees its state; pending calls reject with ERR_CLOSED. Idempotent. */
  close(): void {
    Recorder.#check(this, 'close');
    closeColumns(this.#columns);
    closeColumns(this.#next);
  }

  [Symbol.dispose](): void {
    Recorder.#check(this, '[Symbol.dispose]');
    this.close();
  }

  #checkOpen(): void {
    if (this.#columns[0].stream.closed)
      throw fail('ERR_CLOSED', 'Expected an open recorder but it is closed');
  }
}

/** As a stream would have it. */
function resolve(home: NativeDevice, device: string, config: unknown): ResolvedConfig {
  const stream = adoptStream(native.createStream(home, readConfig(config)), device, home);
  stream.close();
  return stream.config;
}

function readInput(input: unknown, config: ResolvedConfig): { k: Tensor; v: Tensor } {
  const given = readRecord(input, 'input', inputKeys);
  const array = (name: 'k' | 'v'): Tensor => {
    const value = given[name];
    if (!types.isTypedArray(value))
      throw expected('ERR_INVALID_ARG_TYPE', `input.${name}`, 'a typed array', value);
    checkClass(`input.${name}`, value, config.dtype);
    return value;
  };
  const [k, v] = [array('k'), array('v')];
  const { kvHeads, headDim, valueDim } = config;
  const tokens = lengthOf(k) / (kvHeads * headDim);
  if (tokens < 1 || !Number.isInteger(tokens)) throw wrongShape('k', k, `[tokens, ${kvHeads}, ${headDim}]`);
  if (lengthOf(v) !== tokens * kvHeads * valueDim)
    throw wrongShape('v', v, `[${tokens}, ${kvHeads}, ${valueDim}]`);
  return { k, v };
}

const wrongShape = (name: string, tensor: Tensor, shape: string) =>
  fail('ERR_SHAPE', `Expected ${shape} for "input.${name}" but received ${lengthOf(tensor)} elements`);

import { fail } from '../errors';
import { type AttendTransform, makeTransform } from '../transform';
import type { ResolvedConfig, Tensor } from '../types';
import type { SchedulerCore } from './core';
import type { Member } from './member';
import { snapshotMember } from './state';

/** What a scheduled stream's `attend` takes: arrays. */
export interface ScheduledAttendInput {
  /** Queries, `[tokens, heads, headDim]`. */
  q: Tensor;
  /** Keys, `[tokens, kvHeads, headDim]`. */
  k: Tensor;
  /** Values, `[tokens, kvHeads, valueDim]`. */
  v: Tensor;
}

export interface ScheduledRetrieveInput {
  /** Queries, `[tokens, heads, headDim]`. */
  q: Tensor;
}

export interface ScheduledOptions {
  /** Aborts the request, wherever it is: it rejects with ABORT_ERR and the stream is as it was before it. */
  signal?: AbortSignal;
  /**
   * Takes the arrays' memory instead of copying it, so that a long prompt does not hold up the event loop: their buffers
   * are detached, as by `structuredClone(..., { transfer })`. What cannot be detached is copied. Default: false.
   */
  transfer?: boolean;
}

// Only schedulers make these: `new ScheduledStream()` by anyone else has no key.
const key = Symbol('infini-stream scheduled stream');

/** For lib/serving/scheduler.ts. */
export let makeScheduledStream: (core: SchedulerCore, member: Member) => ScheduledStream;

interface Inside {
  readonly core: SchedulerCore;
  readonly member: Member;
}
const forgotten = new FinalizationRegistry<Inside>(({ core, member }) => core.forget(member));

/**
 * A stream whose calls a {@link StreamScheduler} puts in turn with those of others, and whose state it keeps where there
 * is room. Results are bit for bit those of a MemoryStream given the same calls (on CUDA, outputs within their
 * accuracy). Made by `scheduler.createStream`.
 */
export class ScheduledStream {
  readonly #inside: Inside;

  static {
    makeScheduledStream = (core, member) => new ScheduledStream(key, { core, member });
  }

  private constructor(secret: symbol, inside: Inside) {
    if (secret !== key)
      throw fail('ERR_INVALID_ARG_TYPE', 'Expected ScheduledStream to be made by scheduler.createStream()');
    this.#inside = inside;
    forgotten.register(this, inside);
  }

  static #of(receiver: unknown, method: string): Inside {
    if (typeof receiver === 'object' && receiver !== null && #inside in receiver) return receiver.#inside;
    throw fail('ERR_INVALID_ARG_TYPE', `Expected a ScheduledStream as the receiver of ${method}`);
  }

  static #ask(
    receiver: unknown,
    operation: 'attend' | 'retrieve',
    input: unknown,
    options: unknown,
  ): Promise<Tensor> {
    try {
      const { core, member } = ScheduledStream.#of(receiver, operation);
      return core.ask(member, operation, input, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** The configuration with every default filled in; deeply frozen. */
  get config(): Readonly<ResolvedConfig> {
    return ScheduledStream.#of(this, 'config').member.config;
  }

  /** Tokens committed by the requests that have settled. */
  get tokens(): number {
    return ScheduledStream.#of(this, 'tokens').member.tokens;
  }

  /** Bytes of state on the device, the same for ever. */
  get byteLength(): number {
    return ScheduledStream.#of(this, 'byteLength').member.bytes;
  }

  /** Whether {@link close} was called, on it, on its scheduler or on its device. */
  get closed(): boolean {
    return ScheduledStream.#of(this, 'closed').member.closed;
  }

  /**
   * Appends tokens and returns their outputs, `[tokens, heads, valueDim]`, as `MemoryStream.attend`: in call order, all
   * or nothing. The arrays are copied before this returns and are the caller's again at once (or `transfer` gives them away).
   *
   * Never throws; rejects with ERR_CLOSED, ERR_INVALID_ARG_TYPE (device tensors too), ERR_DTYPE, ERR_SHAPE, ABORT_ERR,
   * ERR_BUSY (no room in the queue), ERR_OUT_OF_MEMORY (nor for the state, or for the result), ERR_NON_FINITE or
   * ERR_DEVICE.
   */
  attend(input: ScheduledAttendInput, options?: ScheduledOptions): Promise<Tensor> {
    return ScheduledStream.#ask(this, 'attend', input, options);
  }

  /** A_mem alone, ungated, for any number of queries, as `MemoryStream.retrieve`. Rejects as {@link attend} does. */
  retrieve(input: ScheduledRetrieveInput, options?: ScheduledOptions): Promise<Tensor> {
    return ScheduledStream.#ask(this, 'retrieve', input, options);
  }

  /**
   * The whole state as the bytes of a safetensors file, as `MemoryStream.snapshot`, wherever it is; `scheduler.restore`
   * and `device.restore` make streams of them. Between requests: after `scheduler.drain()`, say.
   *
   * Never throws; rejects with ERR_CLOSED, ERR_BUSY (a request of this stream is pending), ERR_OUT_OF_MEMORY, ERR_DEVICE.
   */
  async snapshot(): Promise<Uint8Array> {
    const { core, member } = ScheduledStream.#of(this, 'snapshot');
    core.checkMember(member);
    return snapshotMember(core, member);
  }

  /** As `MemoryStream.transform`. */
  transform(): AttendTransform {
    ScheduledStream.#of(this, 'transform');
    return makeTransform((input, options) => ScheduledStream.#ask(this, 'attend', input, options)); // holds this stream
  }

  /** Frees the state; requests that have not settled reject with ERR_CLOSED. Idempotent. */
  close(): void {
    const { core, member } = ScheduledStream.#of(this, 'close');
    core.closeMember(member);
  }

  [Symbol.dispose](): void {
    const { core, member } = ScheduledStream.#of(this, '[Symbol.dispose]');
    core.closeMember(member);
  }
}

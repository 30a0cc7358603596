import { readConfig } from '../config';
import { type Device, handleOf } from '../device';
import { expected, fail } from '../errors';
import { native } from '../native';
import type { StreamConfig } from '../types';
import { SchedulerCore, type SchedulerStats } from './core';
import { readLimits, type SchedulerOptions } from './options';
import { makeScheduledStream, type ScheduledStream } from './scheduled-stream';
import { restoreMember } from './state';

/**
 * Continuous batching: requests of many streams share a device, and join and leave its work at every step.
 *
 * - Short requests (up to 16 tokens) go first, one of each stream in turn. Long ones are cut at segment borders into
 *   pieces of at most `maxBatchTokens / 2` tokens, which take turns too: nobody's token waits for more than one unit of
 *   the device's work.
 * - The queue is bounded; see `whenFull`.
 * - Streams that have no room on the device wait in host memory: who was used least recently leaves, and comes back for
 *   its next request.
 */
export class StreamScheduler {
  readonly #core: SchedulerCore;

  /** @throws ERR_INVALID_ARG_TYPE, ERR_OUT_OF_RANGE, ERR_CLOSED (the device). */
  constructor(device: Device, options: SchedulerOptions = {}) {
    const handle = handleOf(device);
    if (!handle) throw expected('ERR_INVALID_ARG_TYPE', 'device', 'a Device', device);
    const limits = readLimits(options);
    if (native.deviceClosed(handle)) throw fail('ERR_CLOSED', 'Expected an open device but it is closed');
    this.#core = new SchedulerCore(handle, native.deviceInfo(handle).id, limits);
  }

  static #of(receiver: unknown, method: string): SchedulerCore {
    if (typeof receiver === 'object' && receiver !== null && #core in receiver) return receiver.#core;
    throw fail('ERR_INVALID_ARG_TYPE', `Expected a StreamScheduler as the receiver of ${method}`);
  }

  /** Whether {@link close} was called, on it or on its device. */
  get closed(): boolean {
    return StreamScheduler.#of(this, 'closed').closed;
  }

  /**
   * Makes an empty stream. It takes its memory with its first request.
   * @throws ERR_CLOSED, ERR_INVALID_ARG_TYPE, ERR_OUT_OF_RANGE, ERR_SHAPE (gate length), ERR_BUSY (`maxStreams` are
   * open), ERR_OUT_OF_MEMORY (all open streams together would exceed `deviceBytes` and `hostBytes`).
   */
  createStream(config: StreamConfig): ScheduledStream {
    const core = StreamScheduler.#of(this, 'createStream');
    return makeScheduledStream(core, core.open(readConfig(config)));
  }

  /**
   * A stream in the state that `snapshot()` of a ScheduledStream or a MemoryStream gave.
   *
   * Never throws; rejects as `device.restore`, and as {@link createStream} throws.
   */
  async restore(bytes: Uint8Array): Promise<ScheduledStream> {
    const core = StreamScheduler.#of(this, 'restore');
    core.checkOpen();
    return makeScheduledStream(core, await restoreMember(core, bytes));
  }

  /** What it holds and has done. */
  stats(): SchedulerStats {
    return StreamScheduler.#of(this, 'stats').stats();
  }

  /** Resolves when no request is left: none waits and none is at work. */
  drain(): Promise<void> {
    try {
      return StreamScheduler.#of(this, 'drain').drain();
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Closes all streams; requests that have not settled reject with ERR_CLOSED. Idempotent. */
  close(): void {
    StreamScheduler.#of(this, 'close').close();
  }

  [Symbol.dispose](): void {
    StreamScheduler.#of(this, '[Symbol.dispose]').close();
  }

  /** `await using`: {@link drain}, then {@link close}. */
  [Symbol.asyncDispose](): Promise<void> {
    try {
      const core = StreamScheduler.#of(this, '[Symbol.asyncDispose]');
      return core.drain().then(() => core.close());
    } catch (error) {
      return Promise.reject(error);
    }
  }
}

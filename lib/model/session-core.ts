import { isAborted, reasonOf, watchAbort } from '../abort';
import { readConfig } from '../config';
import { attended, begin, type ErrorEvent, failed } from '../diagnostics';
import { abortError, errorClasses, fail, type InfiniError } from '../errors';
import { type NativeBatch, type NativeDevice, type NativeModel, type NativeStream, native } from '../native';
import type { StreamConfig } from '../types';
import { tell, type Watchers, watchersOf } from '../watchers';
import { newLogits } from './arrays';
import type { ModelConfig } from './config';
import type { Vocabulary } from './input';
import { Interruption } from './interruption';

/** What a Model is made of, shared with its sessions. */
export interface ModelCore {
  readonly native: NativeModel;
  readonly device: NativeDevice;
  readonly config: ModelConfig;
  readonly vocabulary: Vocabulary;
  /** Of each layer's streams. */
  readonly layers: readonly StreamConfig[];
  /** Told when it is closed. */
  readonly watchers: Watchers;
}

export function checkModelOpen(model: ModelCore): void {
  if (native.modelClosed(model.native)) throw fail('ERR_CLOSED', 'Expected an open model but it is closed');
}

/** What a Session is made of: one native stream per layer, and the logits after its last token. */
export class SessionCore {
  streams: NativeStream[];
  tokens = 0;
  logits: Float32Array | undefined;
  /** Calls that have not settled, and the end of the last of them. */
  pending = 0;
  tail: Promise<unknown> = Promise.resolve();
  closed = false;
  /** Told when it is closed. */
  readonly watchers: Watchers = new Set();

  static empty(model: ModelCore): SessionCore {
    const streams: NativeStream[] = [];
    try {
      for (const layer of model.layers) streams.push(native.createStream(model.device, readConfig(layer)));
    } catch (error) {
      for (const stream of streams) native.closeStream(stream);
      throw error;
    }
    return new SessionCore(model, streams);
  }

  constructor(
    readonly model: ModelCore,
    streams: NativeStream[],
  ) {
    this.streams = streams;
  }

  get isClosed(): boolean {
    return (
      this.closed ||
      native.modelClosed(this.model.native) ||
      native.streamClosed(this.streams[0] as NativeStream)
    );
  }

  /** Whose closing closes it. */
  get closers(): Watchers[] {
    return [this.watchers, this.model.watchers, watchersOf(this.model.device)];
  }

  checkOpen(): void {
    if (!this.isClosed) return;
    throw fail('ERR_CLOSED', 'Expected an open session but it is closed');
  }

  checkIdle(method: string): void {
    if (this.pending > 0)
      throw fail('ERR_BUSY', `Expected no pending call for ${method}() but ${this.pending} have not settled`);
  }

  fork(): SessionCore {
    const forks: NativeStream[] = [];
    try {
      for (const stream of this.streams) forks.push(native.fork(stream));
    } catch (error) {
      for (const stream of forks) native.closeStream(stream);
      throw error;
    }
    const copy = new SessionCore(this.model, forks);
    copy.tokens = this.tokens;
    copy.logits = this.logits;
    return copy;
  }

  /** Becomes what `other` is, which is used up. */
  become(other: SessionCore): void {
    for (const stream of this.streams) native.closeStream(stream);
    this.streams = other.streams;
    this.tokens = other.tokens;
    this.logits = other.logits;
  }

  reset(): void {
    for (const stream of this.streams) native.reset(stream);
    this.tokens = 0;
    this.logits = undefined;
  }

  close(): void {
    this.closed = true;
    tell(this.watchers);
    for (const stream of this.streams) native.closeStream(stream);
  }
}

/** A call on the model's sessions has failed; what the caller's own functions threw is none of the channels' business. */
export function sessionFailed(model: ModelCore, operation: ErrorEvent['operation'], error: unknown): void {
  const code = (error as Partial<InfiniError> | undefined)?.code;
  if (code !== undefined && Object.hasOwn(errorClasses, code))
    failed(native.deviceInfo(model.device).id, operation, error);
}

/** Runs a call on the model's sessions from its checks to its end, and tells of its failure. */
export async function telling<T>(
  model: ModelCore,
  operation: ErrorEvent['operation'],
  call: () => Promise<T>,
): Promise<T> {
  try {
    return await call();
  } catch (error) {
    sessionFailed(model, operation, error);
    throw error;
  }
}

/**
 * Runs `work` when all earlier calls on these sessions have settled: calls take effect in call order. A call that
 * waits starts even if those before it failed; an interruption ends its waiting, but not that of the calls behind it.
 */
export function inTurn<T>(
  sessions: readonly SessionCore[],
  signal: AbortSignal | undefined,
  work: (interruption: Interruption) => Promise<T>,
): Promise<T> {
  const before = Promise.allSettled(sessions.map((session) => session.tail));
  const interruption = new Interruption(sessions, signal);
  const result = (async () => {
    try {
      await interruption.wait(before);
      return await work(interruption);
    } finally {
      interruption.release();
      for (const session of sessions) session.pending--;
    }
  })();
  const settled = Promise.allSettled([before, result]);
  for (const session of sessions) {
    session.pending++;
    session.tail = settled;
  }
  return result;
}

/** Some tokens of one session: which of the call's sessions, and how many tokens of it the call has sent before. */
export interface Part {
  readonly session: SessionCore;
  readonly tokens: Int32Array;
  readonly index: number;
  readonly before: number;
}

/**
 * One native call. All sessions are of one model; on success each has taken its tokens, else none has. `sessions`: how
 * many the whole call has.
 */
export async function forward(
  parts: readonly Part[],
  {
    wanted,
    sessions,
    batches,
    signal,
  }: { wanted: boolean; sessions: number; batches?: NativeBatch[]; signal?: AbortSignal | undefined },
): Promise<void> {
  for (const { session } of parts) session.checkOpen();
  if (signal && isAborted(signal)) throw abortError(reasonOf(signal));
  const { model } = (parts[0] as Part).session;
  const size = model.config.vocabulary;
  // Before the call: when it has taken effect nothing may fail any more.
  const logits = wanted ? newLogits(parts.length * size) : undefined;
  const call = { ticket: 0 };
  const began = begin();
  let unwatch = () => {};
  try {
    await new Promise<void>((resolve, reject) => {
      const settle = (error: Error | null) => {
        if (error) return reject(told(error as InfiniError, signal, parts, sessions));
        if (logits) native.take(logits);
        for (const [i, part] of parts.entries()) {
          part.session.tokens += part.tokens.length;
          part.session.logits = logits?.subarray(i * size, (i + 1) * size);
        }
        resolve();
      };
      if (signal) unwatch = watchAbort(signal, call);
      call.ticket = native.forward(
        model.native,
        parts.flatMap((part) => part.session.streams),
        batches,
        parts.map(({ tokens }) => tokens),
        wanted,
        settle,
      );
    });
  } finally {
    unwatch();
  }
  if (began === 0) return;
  const tokens = parts.reduce((sum, part) => sum + part.tokens.length, 0);
  attended(native.deviceInfo(model.device).id, began, tokens, segmentsFilledBy(parts));
}

/** By parts that have been taken; of a session's layers, which all fill theirs at the same token, one counts. */
function segmentsFilledBy(parts: readonly Part[]): number {
  const segments = ({ session, tokens }: Part) => {
    const { segmentLength } = session.model.config;
    const before = session.tokens - tokens.length;
    return Math.floor(session.tokens / segmentLength) - Math.floor(before / segmentLength);
  };
  return parts.reduce((sum, part) => sum + segments(part), 0);
}

/** The native error in the words of the whole call: native code knows its own chunk only. */
function told(
  error: InfiniError & { stream?: number; token?: number },
  signal: AbortSignal | undefined,
  parts: readonly Part[],
  sessions: number,
): Error {
  if (error.code === 'ABORT_ERR') return abortError(reasonOf(signal));
  const part = parts[error.stream ?? 0];
  if (part && error.token !== undefined && error.token >= 0) {
    error.token += part.before;
    error.message = error.message.replace(/token \d+ of the call/, `token ${error.token} of the call`);
  }
  if (error.stream === undefined) return error;
  delete error.stream;
  if (!part || sessions === 1) return error;
  error.stream = part.index;
  error.message = `Session ${part.index}: ${error.message.replace(/Stream \d+ of the batch: /, '')}`;
  return error;
}

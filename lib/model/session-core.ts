import { type Abortable, isAborted, reasonOf, watchAbort } from '../abort';
import { readConfig } from '../config';
import { abortError, fail, type InfiniError } from '../errors';
import { type NativeBatch, type NativeDevice, type NativeModel, type NativeStream, native } from '../native';
import type { StreamConfig } from '../types';
import type { ModelConfig } from './config';
import type { Vocabulary } from './input';

/** What a Model is made of, shared with its sessions. */
export interface ModelCore {
  readonly native: NativeModel;
  readonly device: NativeDevice;
  readonly config: ModelConfig;
  readonly vocabulary: Vocabulary;
  /** Of each layer's streams. */
  readonly layers: readonly StreamConfig[];
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
  readonly watchers = new Set<() => void>();

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
    return this.closed || native.streamClosed(this.streams[0] as NativeStream);
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
    for (const watcher of this.watchers) watcher();
    for (const stream of this.streams) native.closeStream(stream);
  }
}

/**
 * Runs `work` when all earlier calls on these sessions have settled: calls take effect in call order. A call that
 * waits starts even if those before it failed.
 */
export function inTurn<T>(sessions: readonly SessionCore[], work: () => Promise<T>): Promise<T> {
  const before = sessions.map((session) => session.tail);
  const result = (async () => {
    await Promise.allSettled(before);
    return work();
  })();
  const settled = result.then(
    () => {},
    () => {},
  );
  for (const session of sessions) {
    session.pending++;
    session.tail = settled.then(() => {
      session.pending--;
    });
  }
  return result;
}

/** Some tokens of one session. */
export interface Part {
  readonly session: SessionCore;
  readonly tokens: Int32Array;
}

/** One native call. All sessions are of one model; on success each has taken its tokens, else none has. */
export function forward(
  parts: readonly Part[],
  { wanted, batches, signal }: { wanted: boolean; batches?: NativeBatch[]; signal?: AbortSignal | undefined },
): Promise<void> {
  for (const { session } of parts) session.checkOpen();
  if (signal && isAborted(signal)) throw abortError(reasonOf(signal));
  const { model } = (parts[0] as Part).session;
  const tokens = new Int32Array(parts.reduce((sum, part) => sum + part.tokens.length, 0));
  let row = 0;
  for (const part of parts) {
    tokens.set(part.tokens, row);
    row += part.tokens.length;
  }
  return new Promise((resolve, reject) => {
    const call = { ticket: 0 };
    let unwatch = () => {};
    const settle = (error: Error | null) => {
      unwatch();
      try {
        if (error) throw told(error as InfiniError, signal, parts.length);
        const size = model.config.vocabulary;
        const logits = wanted ? new Float32Array(parts.length * size) : undefined;
        if (logits) native.take(logits);
        for (const [i, part] of parts.entries()) {
          part.session.tokens += part.tokens.length;
          part.session.logits = logits?.slice(i * size, (i + 1) * size);
        }
        resolve();
      } catch (failure) {
        reject(failure);
      }
    };
    try {
      if (signal) unwatch = watchAbort(signal, call as Abortable);
      call.ticket = native.forward(
        model.native,
        parts.flatMap((part) => part.session.streams),
        batches,
        tokens,
        Int32Array.from(parts, (part) => part.tokens.length),
        wanted,
        settle,
      );
    } catch (error) {
      unwatch();
      reject(error);
    }
  });
}

function told(error: InfiniError, signal: AbortSignal | undefined, sessions: number): Error {
  if (error.code === 'ABORT_ERR') return abortError(reasonOf(signal));
  const { stream } = error as InfiniError & { stream?: number };
  if (stream !== undefined && sessions > 1) error.message = `Session ${stream}: ${error.message}`;
  return error;
}

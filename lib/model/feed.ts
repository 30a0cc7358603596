import { isAborted, reasonOf, watchAbort } from '../abort';
import { abortError, fail } from '../errors';
import { forward, type ModelCore, type Part, type SessionCore } from './session-core';

export interface FeedProgress {
  /** Tokens fed so far by this call, in all sessions together. */
  tokens: number;
  /** Of how many, where that is known: token ids are counted before, text is not. */
  total: number | undefined;
}

export interface FeedOptions {
  /** Aborts the call: it rejects with ABORT_ERR and the sessions stay as they were before it. */
  signal?: AbortSignal;
  /** Called after each chunk; what it throws fails the call. */
  onProgress?: (progress: FeedProgress) => void;
}

// Bytes of activations that a chunk may take, and tokens of one session beyond which more gain nothing.
const mostBytes = 64 << 20;
const mostTokens = 1024;

/** Tokens of each session in one chunk. How a feed is cut changes no result. */
export function chunkTokens({ config }: ModelCore, sessions: number): number {
  const { width, heads, kvHeads, headDim, mlpWidth } = config;
  const rowBytes = 4 * (2 * width + 2 * heads * headDim + 2 * kvHeads * headDim + mlpWidth);
  return Math.max(1, Math.min(mostTokens, Math.floor(mostBytes / (rowBytes * sessions))));
}

/** What one session still has to take. */
class Supply {
  #chunk: Int32Array = new Int32Array(0);
  #pieces: AsyncIterator<Int32Array>;
  #ended = false;

  constructor(
    readonly session: SessionCore,
    pieces: AsyncIterable<Int32Array>,
  ) {
    this.#pieces = pieces[Symbol.asyncIterator]();
  }

  /** At least `least` tokens are there, or the end. */
  async #fill(least: number): Promise<void> {
    while (!this.#ended && this.#chunk.length < least) {
      const { done, value } = await this.#pieces.next();
      if (done) {
        this.#ended = true;
        return;
      }
      if (this.#chunk.length === 0) {
        this.#chunk = value;
        continue;
      }
      const joined = new Int32Array(this.#chunk.length + value.length);
      joined.set(this.#chunk);
      joined.set(value, this.#chunk.length);
      this.#chunk = joined;
    }
  }

  /** The next tokens, up to `most`; none at the end. */
  async take(most: number): Promise<Int32Array> {
    await this.#fill(most + 1); // one more, to know whether these are the last
    const tokens = this.#chunk.subarray(0, most);
    this.#chunk = this.#chunk.subarray(tokens.length);
    return tokens;
  }

  /** Whether nothing is left. */
  get last(): boolean {
    return this.#ended && this.#chunk.length === 0;
  }

  /** Lets the source go. Nobody waits for it: a source that waits itself answers when it likes. */
  stop(): void {
    if (!this.#ended) this.#pieces.return?.().then(undefined, () => {});
  }
}

export interface Feeding {
  readonly session: SessionCore;
  readonly pieces: AsyncIterable<Int32Array>;
}

/** Feeds all sessions side by side, chunk by chunk; all or nothing. */
export async function feed(
  feedings: readonly Feeding[],
  { signal, onProgress }: FeedOptions,
  total: number | undefined,
): Promise<void> {
  const supplies = feedings.map(({ session, pieces }) => new Supply(session, pieces));
  const backups = new Map<SessionCore, SessionCore>();
  const interruption = new Interruption(
    feedings.map(({ session }) => session),
    signal,
  );
  let fed = 0;
  try {
    for (let left = supplies; left.length > 0; left = left.filter((supply) => !supply.last)) {
      const parts: Part[] = [];
      for (const supply of left) {
        const { session } = supply;
        const most = chunkTokens(session.model, left.length);
        const segment = session.model.config.segmentLength;
        // Up to a border where one is within reach: a segment that is filled at once is never copied.
        const open = session.tokens % segment;
        const wanted = most > segment ? most - ((open + most) % segment) : most;
        const tokens = await Promise.race([supply.take(wanted), interruption.promise]);
        if (tokens.length > 0) parts.push({ session, tokens });
      }
      if (signal && isAborted(signal)) throw abortError(reasonOf(signal));
      if (parts.length === 0) continue;
      // A chunk commits as a whole; only what more than one does may have to be undone.
      if (onProgress || left.some((supply) => !supply.last)) {
        for (const { session } of parts) if (!backups.has(session)) backups.set(session, session.fork());
      }
      const ends = left.some((supply) => supply.last);
      await forward(parts, { wanted: ends, signal });
      for (const { tokens } of parts) fed += tokens.length;
      onProgress?.({ tokens: fed, total });
    }
    for (const backup of backups.values()) backup.close();
  } catch (error) {
    for (const supply of supplies) supply.stop();
    for (const [session, backup] of backups) session.closed ? backup.close() : session.become(backup);
    throw error;
  } finally {
    interruption.release();
  }
}

/** Rejects when the signal fires or a session is closed: also while a source has nothing to give. */
class Interruption {
  readonly promise: Promise<never>;
  readonly release: () => void;

  constructor(sessions: readonly SessionCore[], signal: AbortSignal | undefined) {
    let interrupt: (reason: Error) => void = () => {};
    this.promise = new Promise((_, reject) => (interrupt = reject));
    this.promise.catch(() => {}); // perhaps nobody waits just then
    const abort = () => interrupt(abortError(reasonOf(signal)));
    const unwatch = signal && watchAbort(signal, { ticket: 0, interrupt: abort });
    const close = () => interrupt(fail('ERR_CLOSED', 'The session was closed during the call'));
    for (const { watchers } of sessions) watchers.add(close);
    this.release = () => {
      for (const { watchers } of sessions) watchers.delete(close);
      unwatch?.();
    };
  }
}

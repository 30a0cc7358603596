import type { Interruption } from './interruption';
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
  /** Tokens taken. */
  fed = 0;

  constructor(
    readonly session: SessionCore,
    pieces: AsyncIterable<Int32Array>,
    /** Among the sessions of the call. */
    readonly index: number,
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

  /** The next chunk's tokens, of so many sessions; none at the end. */
  async take(sessions: number): Promise<Part> {
    const { session, index, fed: before } = this;
    const most = chunkTokens(session.model, sessions);
    const segment = session.model.config.segmentLength;
    // Up to a border where one is within reach: a segment that is filled at once is never copied.
    const wanted = most > segment ? most - ((session.tokens + most) % segment) : most;
    await this.#fill(wanted + 1); // one more, to know whether these are the last
    const tokens = this.#chunk.subarray(0, wanted);
    this.#chunk = this.#chunk.subarray(tokens.length);
    this.fed += tokens.length;
    return { session, tokens, index, before };
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
  interruption: Interruption,
): Promise<void> {
  const supplies = feedings.map(({ session, pieces }, i) => new Supply(session, pieces, i));
  const backups = new Map<SessionCore, SessionCore>();
  let fed = 0;
  try {
    for (let left = supplies; left.length > 0; left = left.filter((supply) => !supply.last)) {
      const taken = await interruption.wait(Promise.all(left.map((supply) => supply.take(left.length))));
      const parts = taken.filter(({ tokens }) => tokens.length > 0);
      if (parts.length === 0) continue;
      // A chunk commits as a whole; only what more than one does may have to be undone.
      if (onProgress || left.some((supply) => !supply.last)) {
        for (const { session } of parts) if (!backups.has(session)) backups.set(session, session.fork());
      }
      const ends = left.some((supply) => supply.last);
      await forward(parts, { wanted: ends, signal, sessions: feedings.length });
      for (const { tokens } of parts) fed += tokens.length;
      onProgress?.({ tokens: fed, total });
    }
    for (const backup of backups.values()) backup.close();
  } catch (error) {
    for (const supply of supplies) supply.stop();
    for (const [session, backup] of backups) session.closed ? backup.close() : session.become(backup);
    throw error;
  }
}

import { rm, unlink } from 'node:fs/promises';
import path from 'node:path';
import { type GenerateOptions, type Session, saveSession } from 'infini-stream';
import { ServiceError } from './errors';
import { type Journal, syncFolder } from './journal';

/** A generated token that is on the disk, and how many tokens the stream has with it. */
export interface Said {
  readonly token: number;
  readonly text: string;
  readonly tokens: number;
}

export interface StreamLimits {
  /** Calls that may wait for one another on a stream. */
  waiting: number;
  /** Tokens in a log before a snapshot takes their place. */
  logTokens: number;
}

/** Where a stream lies: its log, without which there is no stream, and beside it the last snapshot, if there is one. */
export const filesOf = (folder: string, id: string) => ({
  log: path.join(folder, `${id}.log`),
  snapshot: path.join(folder, `${id}.safetensors`),
});

/**
 * A session whose tokens outlive the process: each call tells its caller what the session took when the log has it. The order
 * is always session, log, caller. What the session refuses is thus never in the log; what was told is on the disk; and
 * what a dying process had not told may be there or not, which a client learns from the number of tokens.
 */
export class LiveStream {
  /** The end of the last call's turn. */
  #tail: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #removed = false;

  constructor(
    readonly id: string,
    readonly user: string,
    readonly folder: string,
    readonly session: Session,
    readonly journal: Journal,
    readonly limits: StreamLimits,
    /** Tokens in the last snapshot. */
    private saved: number,
  ) {}

  /** What the session has; the last of them may not be in the log yet. */
  get tokens(): number {
    return this.session.tokens;
  }

  /**
   * Appends tokens; resolves with the number that the stream has then. `at`, where the caller takes them to begin,
   * makes it safe to try again after an answer that was lost.
   */
  async feed(tokens: Int32Array, at?: number): Promise<number> {
    const { end, written } = await this.#inTurn(async () => {
      const position = this.session.tokens;
      if (at !== undefined && at !== position)
        throw new ServiceError(
          'ERR_POSITION',
          409,
          `Expected "at" to be ${position}, the stream's tokens, but received ${at}`,
        );
      await this.session.feed(tokens);
      return { end: position + tokens.length, written: this.#log(position, tokens) };
    });
    await written; // others feed meanwhile
    return end;
  }

  /** Generates; each token is in the log before it is said. Whoever stops listening ends it. */
  async *generate(options: GenerateOptions): AsyncGenerator<Said> {
    const done = await this.#turn();
    try {
      for await (const { token, text } of this.session.generate(options)) {
        const end = this.session.tokens;
        await this.#log(end - 1, Int32Array.of(token));
        yield { token, text, tokens: end };
      }
    } finally {
      done();
    }
  }

  #log(position: number, tokens: Int32Array): Promise<void> {
    const written = this.journal.append({ position, tokens });
    if (position + tokens.length - this.saved >= this.limits.logTokens) {
      this.saved = position + tokens.length;
      this.save().catch((error: unknown) => {
        if (!this.#removed) console.error(`stream ${this.id}: no snapshot:`, error); // the log goes on
      });
    }
    return written;
  }

  /** The snapshot takes the log's place. A death in between leaves both, and entries that a start skips. */
  async save(): Promise<void> {
    const done = await this.#turn(Number.POSITIVE_INFINITY);
    try {
      await saveSession(this.session, filesOf(this.folder, this.id).snapshot);
      await this.journal.clear();
      this.saved = this.session.tokens;
    } finally {
      done();
    }
  }

  /** Deletes it, when the call that is at work has ended. */
  async remove(): Promise<void> {
    this.#removed = true; // for those who wait, and those who come
    await this.#tail;
    await this.close();
    const { log, snapshot } = filesOf(this.folder, this.id);
    await unlink(log);
    await syncFolder(this.folder); // from here on it is deleted; a snapshot without a log is nothing
    await rm(snapshot, { force: true });
  }

  async close(): Promise<void> {
    this.session.close();
    await this.journal.close();
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = await this.#turn();
    try {
      return await work();
    } finally {
      done();
    }
  }

  /** Waits for the calls before; the result ends the turn. */
  async #turn(most = this.limits.waiting): Promise<() => void> {
    if (this.#waiting >= most)
      throw new ServiceError('ERR_BUSY', 429, `Expected at most ${most} waiting calls on a stream`);
    const before = this.#tail;
    let done = () => {};
    this.#tail = new Promise<void>((resolve) => (done = resolve));
    this.#waiting++;
    await before;
    this.#waiting--;
    const refusal = this.#refusal();
    if (!refusal) return done;
    done();
    throw refusal;
  }

  #refusal(): Error | undefined {
    if (!this.#removed) return this.journal.failure;
    return new ServiceError('ERR_CLOSED', 410, 'Expected a stream but it was deleted meanwhile');
  }
}

import { fail } from '../errors';
import { native } from '../native';
import { snapshotSession } from '../snapshot/session';
import { type FeedOptions, feed } from './feed';
import { Generation, requireLogits, Transcript } from './generate';
import { type ModelInput, readInput } from './input';
import { type GenerateOptions, readFeedOptions, readGenerateOptions } from './options';
import { inTurn, type SessionCore, sessionFailed, telling } from './session-core';

// Only this file makes sessions: `new Session()` by anyone else has no key.
const key = Symbol('infini-stream session');

/** For lib/model/model.ts. */
export let adoptSession: (core: SessionCore) => Session;
/** Undefined for everything else than a session. */
export let sessionCoreOf: (session: unknown) => SessionCore | undefined;

/**
 * One unbounded text on its way through a model, in constant memory. Made by `model.createSession()`.
 *
 * Calls take effect in call order. While one is pending, `logits`, `fork` and `reset` throw ERR_BUSY; `close` is always
 * allowed. A feed that fails for any reason leaves the session as it was before it. How tokens are split among calls
 * changes no bit on the CPU, and on CUDA nothing beyond the accuracy of its outputs.
 */
export class Session {
  readonly #core: SessionCore;

  static {
    adoptSession = (core) => new Session(key, core);
    sessionCoreOf = (session) =>
      typeof session === 'object' && session !== null && #core in session ? session.#core : undefined;
  }

  private constructor(secret: symbol, core: SessionCore) {
    if (secret !== key)
      throw fail('ERR_INVALID_ARG_TYPE', 'Expected Session to be made by model.createSession()');
    this.#core = core;
  }

  static #of(receiver: unknown, method: string): SessionCore {
    const core = sessionCoreOf(receiver);
    if (core) return core;
    throw fail('ERR_INVALID_ARG_TYPE', `Expected a Session as the receiver of ${method}`);
  }

  /** Tokens taken: by the calls that have settled, and by the chunks so far of one that has not. */
  get tokens(): number {
    return Session.#of(this, 'tokens').tokens;
  }

  /** Bytes of state, the same for ever: the sum of `byteLength` of one stream per layer. */
  get byteLength(): number {
    return Session.#of(this, 'byteLength').streams.reduce(
      (sum, stream) => sum + native.byteLength(stream),
      0,
    );
  }

  /** Whether {@link close} was called, on it, its model or its device. It works no more then. */
  get closed(): boolean {
    return Session.#of(this, 'closed').isClosed;
  }

  /**
   * Takes a text, token ids, or an async iterable of them (a readable stream with an encoding, say): any length, in
   * bounded memory. A text is tokenized by itself: two texts may give other tokens than both as one. The texts of one
   * iterable are one text, however they are cut.
   *
   * Rejects with ERR_CLOSED, ERR_INVALID_ARG_TYPE, ERR_OUT_OF_RANGE (a token that is not in the vocabulary), ABORT_ERR,
   * ERR_NON_FINITE (activations that overflow), ERR_OUT_OF_MEMORY, ERR_DEVICE, and with what the iterable or
   * `onProgress` throws.
   */
  async feed(input: ModelInput, options?: FeedOptions): Promise<void> {
    const session = Session.#of(this, 'feed');
    await telling(session.model, 'feed', async () => {
      session.checkOpen();
      const checked = readFeedOptions(options);
      const { pieces, total } = readInput(input, session.model.vocabulary, 'input');
      await inTurn([session], checked.signal, (interruption) =>
        feed([{ session, pieces }], checked, total, interruption),
      );
    });
  }

  /**
   * Says what follows, token by token; see {@link Generation}. `maxTokens` is needed.
   * @throws ERR_CLOSED, ERR_INVALID_ARG_TYPE, ERR_OUT_OF_RANGE at once; and rejects as {@link feed} does, or with
   * ERR_OUT_OF_RANGE when nothing was fed.
   */
  generate(options: GenerateOptions): Generation {
    const session = Session.#of(this, 'generate');
    try {
      session.checkOpen();
      const plan = readGenerateOptions(options, session.model.vocabulary);
      return new Generation(() => new Transcript(session, plan(0)));
    } catch (error) {
      sessionFailed(session.model, 'generate', error);
      throw error;
    }
  }

  /**
   * A copy of the logits after the last token, one per token of the vocabulary.
   * @throws ERR_OUT_OF_RANGE when there is no token yet; ERR_BUSY.
   */
  logits(): Float32Array {
    const session = Session.#of(this, 'logits');
    session.checkIdle('logits');
    return requireLogits(session, 'logits').slice();
  }

  /** An independent copy. @throws ERR_CLOSED, ERR_BUSY, ERR_OUT_OF_MEMORY. */
  fork(): Session {
    const session = Session.#of(this, 'fork');
    session.checkOpen();
    session.checkIdle('fork');
    return adoptSession(session.fork());
  }

  /**
   * The whole state as the bytes of a safetensors file: one stream per layer (`layers.0.matrix` ...), the counters and the
   * logits, so that `model.restoreSession` makes a session of them that goes on bit for bit. Takes effect in call order.
   *
   * Rejects with ERR_CLOSED, ERR_OUT_OF_MEMORY, ERR_DEVICE.
   */
  async snapshot(): Promise<Uint8Array> {
    return snapshotSession(Session.#of(this, 'snapshot'));
  }

  /** Forgets everything. @throws ERR_CLOSED, ERR_BUSY. */
  reset(): void {
    const session = Session.#of(this, 'reset');
    session.checkOpen();
    session.checkIdle('reset');
    session.reset();
  }

  /** Frees the state; pending calls reject with ERR_CLOSED. Idempotent. */
  close(): void {
    Session.#of(this, 'close').close();
  }

  [Symbol.dispose](): void {
    Session.#of(this, '[Symbol.dispose]').close();
  }
}

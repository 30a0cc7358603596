import { isAborted, reasonOf } from '../abort';
import { abortError, fail } from '../errors';
import { type NativeBatch, type NativeStream, native } from '../native';
import type { Sampler } from './sampler';
import { forward, inTurn, type SessionCore, sessionFailed } from './session-core';

/** One generated token; `text` is what it adds, empty while a character is not complete or there is no tokenizer. */
export interface GeneratedToken {
  readonly token: number;
  readonly text: string;
}

export interface Generated {
  /** What was generated, without a stop token. */
  readonly tokens: Int32Array;
  /** Their text, up to a stop text; empty without a tokenizer. */
  readonly text: string;
  /**
   * 'length': `maxTokens` are there; 'stop': a stop token or a stop text was met; 'left': whoever iterated has left.
   */
  readonly finish: 'length' | 'stop' | 'left';
}

/** What to generate, checked. */
export interface Plan {
  readonly maxTokens: number;
  readonly sampler: Sampler;
  readonly stopTokens: ReadonlySet<number>;
  readonly stopTexts: readonly string[];
  readonly signal: AbortSignal | undefined;
}

/** The tokens of one session so far, and the text they make. */
export class Transcript {
  readonly tokens: number[] = [];
  text = '';
  finish: Generated['finish'] | undefined;
  /** What ended it. */
  error: unknown;
  #shown = 0;
  /** Before here there is no stop text, nor can one begin. */
  #searched = 0;
  #settled = 0; // tokens whose text is complete, and its length
  #settledText = '';

  constructor(
    readonly session: SessionCore,
    readonly plan: Plan,
  ) {}

  /** Chooses the next token; undefined when there is none any more. */
  choose(): number | undefined {
    if (this.finish) return undefined;
    if (this.tokens.length >= this.plan.maxTokens) {
      this.finish = 'length';
      return undefined;
    }
    const token = this.plan.sampler(this.session.logits as Float32Array);
    if (!this.plan.stopTokens.has(token)) return token;
    this.finish = 'stop';
    return undefined;
  }

  /** The session has taken the token. */
  add(token: number): GeneratedToken {
    this.tokens.push(token);
    const { tokenizer } = this.session.model.vocabulary;
    if (!tokenizer) return { token, text: '' };
    const tail = tokenizer.decode(this.tokens.slice(this.#settled));
    this.text = this.#settledText + tail;
    if (!tail.endsWith('\ufffd') && this.tokens.length - this.#settled >= 32) {
      // Decoding begins anew here. One token stays: some decoders drop the space of the first.
      const kept = tokenizer.decode(this.tokens.slice(-1));
      if (tail.endsWith(kept)) {
        this.#settled = this.tokens.length - 1;
        this.#settledText = this.text.slice(0, this.text.length - kept.length);
      }
    }
    const { stopTexts } = this.plan;
    const stops = stopTexts.map((stop) => this.text.indexOf(stop, this.#searched)).filter((at) => at >= 0);
    if (stops.length > 0) {
      this.text = this.text.slice(0, Math.min(...stops));
      this.finish = 'stop';
    }
    const longest = stopTexts.reduce((most, stop) => Math.max(most, stop.length), 0);
    this.#searched = Math.max(0, this.#settledText.length - longest + 1); // the rest may be decoded otherwise yet
    const full = this.finish !== undefined || this.tokens.length >= this.plan.maxTokens; // nothing follows
    const shown = full ? this.text.length : this.text.length - heldBack(this.text, stopTexts);
    const added = this.text.slice(this.#shown, shown);
    this.#shown = Math.max(this.#shown, shown);
    return { token, text: added };
  }

  result(): Generated {
    return {
      tokens: Int32Array.from(this.tokens),
      text: this.text,
      finish: this.finish ?? 'left',
    };
  }
}

/** Characters at the end that may be part of a stop text, or of a character that is not complete. */
function heldBack(text: string, stops: readonly string[]): number {
  let held = text.endsWith('\ufffd') ? 1 : 0;
  for (const stop of stops) {
    for (let length = Math.min(stop.length - 1, text.length); length > held; length--) {
      if (text.endsWith(stop.slice(0, length))) held = length;
    }
  }
  return held;
}

/**
 * What `session.generate()` returns: await it for everything, or iterate over it for token after token. It begins then.
 * Each token is in the session when it is seen; whoever stops iterating, or aborts, keeps those. Each is a call of its own
 * in the session's order.
 */
export class Generation implements PromiseLike<Generated>, AsyncIterable<GeneratedToken> {
  readonly #begin: () => Transcript;
  #started: AsyncGenerator<GeneratedToken> | undefined;
  #transcript: Transcript | undefined;
  #result: Promise<Generated> | undefined;

  /** @internal */
  constructor(begin: () => Transcript) {
    this.#begin = begin;
  }

  #iterate(): AsyncGenerator<GeneratedToken> {
    if (this.#started) return this.#started;
    const transcript = this.#begin();
    this.#transcript = transcript;
    this.#started = generateOne(transcript);
    return this.#started;
  }

  [Symbol.asyncIterator](): AsyncIterator<GeneratedToken> {
    return this.#iterate();
  }

  async #all(): Promise<Generated> {
    for await (const _ of this.#iterate());
    const transcript = this.#transcript as Transcript;
    if (transcript.error) throw transcript.error; // met by whoever iterated before
    return transcript.result();
  }

  // biome-ignore lint/suspicious/noThenProperty: awaiting is one of its two uses
  then<A = Generated, B = never>(
    resolve?: ((value: Generated) => A | PromiseLike<A>) | null,
    reject?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#result ??= this.#all();
    return this.#result.then(resolve, reject);
  }
}

async function* generateOne(transcript: Transcript): AsyncGenerator<GeneratedToken> {
  const { session, plan } = transcript;
  for (;;) {
    const step = inTurn([session], plan.signal, async () => {
      const token = choose(transcript);
      if (token === undefined) return undefined;
      await forward([{ session, tokens: Int32Array.of(token), index: 0, before: 0 }], {
        wanted: true,
        sessions: 1,
        signal: plan.signal,
      });
      return transcript.add(token);
    });
    step.catch((error: unknown) => {
      transcript.error = error;
      sessionFailed(session.model, 'generate', error);
    });
    const next = await step;
    if (!next) return;
    yield next;
  }
}

/** What the session says next, if it may. */
function choose(transcript: Transcript): number | undefined {
  const { session, plan } = transcript;
  session.checkOpen();
  if (plan.signal && isAborted(plan.signal)) throw abortError(reasonOf(plan.signal));
  requireLogits(session, 'generate');
  return transcript.choose();
}

/** The logits after the session's last token. */
export function requireLogits(session: SessionCore, method: string): Float32Array {
  if (session.logits) return session.logits;
  throw fail('ERR_OUT_OF_RANGE', `Expected a session that was fed for ${method}() but it has no tokens`);
}

/** Milliseconds that the event loop waits for tokens to be chosen, of many sessions out of many words. */
const mostSampling = 5;

/** All transcripts side by side: one token of each that is not finished in each step. */
export async function generateTogether(transcripts: readonly Transcript[]): Promise<void> {
  let batches: NativeBatch[] | undefined; // one per layer
  let members = 0;
  const { plan, session: first } = transcripts[0] as Transcript;
  const { signal } = plan;
  const { device, layers } = first.model;
  const close = () => {
    for (const batch of batches ?? []) native.closeBatch(batch);
    batches = undefined;
  };
  try {
    for (let left = [...transcripts]; ; ) {
      const tokens = new Map<Transcript, number>();
      let begun = performance.now();
      for (const transcript of left) {
        const token = choose(transcript);
        if (token !== undefined) tokens.set(transcript, token);
        if (performance.now() - begun < mostSampling) continue;
        await new Promise(setImmediate);
        begun = performance.now();
      }
      left = [...tokens.keys()];
      if (left.length === 0) return;
      if (left.length !== members) {
        close();
        members = left.length;
        if (members > 1) {
          batches = [];
          for (const layer of layers.keys()) {
            const streams = left.map(({ session }) => session.streams[layer] as NativeStream);
            batches.push(native.createBatch(device, streams));
          }
        }
      }
      const parts = left.map((transcript) => ({
        session: transcript.session,
        tokens: Int32Array.of(tokens.get(transcript) as number),
        index: transcripts.indexOf(transcript),
        before: transcript.tokens.length,
      }));
      await forward(parts, {
        wanted: true,
        sessions: transcripts.length,
        signal,
        ...(batches && { batches }),
      });
      for (const transcript of left) transcript.add(tokens.get(transcript) as number);
    }
  } finally {
    close();
  }
}

import type { MemoryStream } from '../../index';
import { median } from '../format';
import { CLOSED, type Features, OPEN, type Opening } from './features';

/** q, k and v of one call together. A caller should stay below 64 MB; a fifth of that is as fast. */
const CALL_BYTES = 12e6;
/** While one call is computed, the next one is made ready and copied. */
const IN_FLIGHT = 2;

/** What the clock says, and what all threads of this process together worked: a busy machine changes the first. */
export interface TokenTime {
  wall: number;
  processor: number;
}

export interface PassTimes {
  tokens: number;
  seconds: number;
  tokensPerSecond: number;
  /** Microseconds a token, median over the calls of the first and of the last tenth of the text. */
  firstTenth: TokenTime;
  lastTenth: TokenTime;
  /** Resident memory of the process after a tenth of the text and at its end, in bytes. */
  rssAtTenth: number;
  rssAtEnd: number;
}

/** Writes the features of consecutive stretches of a text into buffers that it keeps. */
export class FeatureWriter {
  readonly #text: string;
  readonly #openings: Opening[];
  readonly #features: Features;
  readonly #keys: Float32Array;
  readonly #values: Float32Array;
  #next = 0;
  #marked: { row: Float32Array; context: string }[] = [];

  constructor(text: string, openings: Opening[], features: Features, capacity: number) {
    const { heads, headDim, valueDim } = features.shape;
    this.#text = text;
    this.#openings = openings;
    this.#features = features;
    this.#keys = new Float32Array(capacity * heads * headDim).fill(CLOSED);
    this.#values = new Float32Array(capacity * heads * valueDim);
  }

  /** Tokens [start, start + tokens); stretches are asked for in order. The query of a token is its key. */
  write(start: number, tokens: number): { q: Float32Array; k: Float32Array; v: Float32Array } {
    const { heads, headDim, valueDim } = this.#features.shape;
    for (const { row, context } of this.#marked) this.#features.mark(row, context, CLOSED);
    this.#marked = [];
    for (; this.#openings[this.#next]?.token < start + tokens; this.#next++) {
      const { token, context } = this.#openings[this.#next];
      const at = (token - start) * heads * headDim;
      const row = this.#keys.subarray(at, at + heads * headDim);
      this.#features.mark(row, context, OPEN);
      this.#marked.push({ row, context });
    }
    for (let t = 0; t < tokens; t++) {
      const next = start + t + 1 < this.#text.length ? this.#text.charCodeAt(start + t + 1) : 32;
      this.#values.set(this.#features.code(next), t * heads * valueDim);
    }
    const k = this.#keys.subarray(0, tokens * heads * headDim);
    return { q: k, k, v: this.#values.subarray(0, tokens * heads * valueDim) };
  }
}

export function tokensPerCall(features: Features, total: number): number {
  const { heads, headDim, valueDim } = features.shape;
  const fitting = Math.floor(CALL_BYTES / (4 * heads * (2 * headDim + valueDim)));
  // At least forty calls, so that a tenth of the text is a few of them.
  return Math.max(1, Math.min(fitting, 4096, Math.ceil(total / 40)));
}

/** Streams the whole text, at most two calls ahead. */
export async function streamText(
  stream: MemoryStream,
  text: string,
  openings: Opening[],
  features: Features,
  signal: AbortSignal,
  onProgress: (tokens: number) => void,
): Promise<PassTimes> {
  const { heads, valueDim } = features.shape;
  const size = tokensPerCall(features, text.length);
  const writer = new FeatureWriter(text, openings, features, size);
  const outs = Array.from({ length: IN_FLIGHT }, () => new Float32Array(size * heads * valueDim));
  const pending: { end: number; call: Promise<unknown> }[] = [];
  const perToken: TokenTime[] = [];
  let rssAtTenth = 0;
  let done = 0;
  const begin = performance.now();
  let last = begin;
  let worked = processorTime();

  const settle = async () => {
    const { end, call } = pending[0];
    await call;
    pending.shift();
    const now = performance.now();
    const work = processorTime();
    perToken.push({ wall: (1000 * (now - last)) / (end - done), processor: (work - worked) / (end - done) });
    last = now;
    worked = work;
    done = end;
    if (rssAtTenth === 0 && done * 10 >= text.length) rssAtTenth = process.memoryUsage.rss();
    onProgress(done);
  };

  try {
    for (let start = 0, n = 0; start < text.length; start += size, n++) {
      const tokens = Math.min(size, text.length - start);
      const out = outs[n % IN_FLIGHT].subarray(0, tokens * heads * valueDim);
      const call = stream.attend(writer.write(start, tokens), { out, signal });
      call.catch(() => {}); // it may fail before its turn to be awaited
      pending.push({ end: start + tokens, call });
      if (pending.length === IN_FLIGHT) await settle();
    }
    while (pending.length > 0) await settle();
  } catch (error) {
    await Promise.allSettled(pending.map(({ call }) => call));
    throw error;
  }

  const seconds = (last - begin) / 1000;
  const tenth = Math.max(1, Math.floor(perToken.length / 10));
  return {
    tokens: text.length,
    seconds,
    tokensPerSecond: text.length / seconds,
    firstTenth: typical(perToken.slice(0, tenth)),
    lastTenth: typical(perToken.slice(-tenth)),
    rssAtTenth,
    rssAtEnd: process.memoryUsage.rss(),
  };
}

const typical = (times: TokenTime[]): TokenTime => ({
  wall: median(times.map(({ wall }) => wall)),
  processor: median(times.map(({ processor }) => processor)),
});

/** Microseconds. */
function processorTime(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

import { loadText } from '../source';
import { type Encoder, FILLER } from './task';

export const HAYSTACKS = ['filler', 'english'] as const;
export type HaystackName = (typeof HAYSTACKS)[number];

/** Something to read: endless, its tokens known by their places. */
export interface Text {
  slice(from: number, to: number): Int32Array;
}

/**
 * Sentences in a cycle. Each has the space before it, but for the very first. They are tokenized one by one, when they
 * are first needed: a tokenizer is slower than the model here.
 */
export class Haystack implements Text {
  readonly #encoder: Encoder;
  readonly #sentences: readonly string[];
  /** The very first sentence, and how many tokens more it has with a space before it. */
  readonly #first: Int32Array;
  readonly #space: number;
  /** The round so far, spaces and all, and where its sentences begin. */
  #round = new Int32Array(1 << 16);
  #length = 0;
  readonly #begins = new Set<number>();

  constructor(encoder: Encoder, sentences: readonly string[]) {
    this.#encoder = encoder;
    this.#sentences = sentences;
    this.#first = encoder.encode(sentences[0]);
    this.#fill(1);
    this.#space = this.#length - this.#first.length;
  }

  static named(name: HaystackName, encoder: Encoder): Haystack {
    return new Haystack(encoder, name === 'filler' ? FILLER : sentencesOf(loadText().text));
  }

  slice(from: number, to: number): Int32Array {
    const tokens = new Int32Array(to - from);
    const head = this.#first.subarray(from, to);
    tokens.set(head);
    tokens.set(this.spaced(from + head.length + this.#space, to + this.#space), head.length);
    return tokens;
  }

  /** As `slice` of a haystack before which something stands: its first sentence has the space too. */
  spaced(from: number, to: number): Int32Array {
    const tokens = new Int32Array(Math.max(0, to - from));
    this.#fill(to);
    for (let at = 0; at < tokens.length; ) {
      const begin = (from + at) % this.#length;
      const part = this.#round.subarray(begin, Math.min(begin + tokens.length - at, this.#length));
      tokens.set(part, at);
      at += part.length;
    }
    return tokens;
  }

  /** Whether a sentence begins at this token. */
  isBoundary(place: number): boolean {
    this.#fill(place + this.#space + 1);
    return place === 0 || this.#begins.has((place + this.#space) % this.#length);
  }

  /** Tokenizes until there are so many tokens or the round is complete. */
  #fill(tokens: number): void {
    while (this.#length < tokens && this.#begins.size < this.#sentences.length) {
      const sentence = this.#encoder.encode(` ${this.#sentences[this.#begins.size]}`);
      this.#begins.add(this.#length);
      const length = this.#length + sentence.length;
      if (length > this.#round.length) {
        const larger = new Int32Array(2 * length);
        larger.set(this.#round);
        this.#round = larger;
      }
      this.#round.set(sentence, this.#length);
      this.#length = length;
    }
  }
}

/** A semicolon ends a sentence too: some of the novel's go on for two thousand letters. */
export const sentencesOf = (text: string): string[] => text.split(/(?<=[.!?;]["'”’)]*) /);

/** The haystack with a statement in it. */
export function hide(haystack: Haystack, statement: Int32Array, place: number): Text {
  const end = place + statement.length;
  return {
    slice(from, to) {
      const before = haystack.slice(Math.min(from, place), Math.min(to, place));
      const inside = statement.subarray(Math.max(0, from - place), Math.max(0, to - place));
      const rest = [Math.max(from, end) - statement.length, Math.max(to, end) - statement.length] as const;
      const after = place === 0 ? haystack.spaced(...rest) : haystack.slice(...rest);
      const tokens = new Int32Array(to - from);
      tokens.set(before);
      tokens.set(inside, before.length);
      tokens.set(after, before.length + inside.length);
      return tokens;
    },
  };
}

import type { Model } from '../../index';

/** The pass-key task (Mohtashami and Jaggi 2023; arXiv 2404.07143, section 4.2), word for word as in train/task.py. */
export const FILLER = [
  'The grass is green.',
  'The sky is blue.',
  'The sun is yellow.',
  'Here we go.',
  'There and back again.',
];
export const QUESTION = 'What is the pass key? The pass key is ';
export const DIGITS = 5;
export const statementOf = (key: string): string =>
  `The pass key is ${key}. Remember it. ${key} is the pass key.`;

/** What turns text into tokens: a model. */
export type Encoder = Pick<Model, 'encode'>;

/** The task in the tokens of one model. */
export class Task {
  readonly question: Int32Array;
  readonly #encoder: Encoder;
  readonly #digits: number[];

  constructor(encoder: Encoder) {
    this.#encoder = encoder;
    this.question = encoder.encode(` ${QUESTION}`);
    this.#digits = ['01234', '56789'].flatMap((key) => this.#answer(key));
    const apart = FILLER.map((sentence, i) => encoder.encode(i === 0 ? sentence : ` ${sentence}`));
    if (
      !same(
        encoder.encode(FILLER.join(' ')),
        apart.flatMap((tokens) => Array.from(tokens)),
      )
    )
      throw new Error(
        "the model's tokenizer gives other tokens for a text than for its sentences one by one",
      );
  }

  /** The tokens of a key, which the question's tokens stand before. */
  #answer(key: string): number[] {
    const whole = this.#encoder.encode(` ${QUESTION}${key}`);
    const digits = Array.from(whole.subarray(this.question.length));
    if (digits.length !== DIGITS || !same(whole.subarray(0, this.question.length), this.question))
      throw new Error("the model's tokenizer does not make one token of each digit, as the task needs");
    return digits;
  }

  /** Tokens that question and answer take at the end of a document. */
  get asking(): number {
    return this.question.length + DIGITS;
  }

  /** At the very beginning of a document no space stands before it. */
  statement(key: string, place: number): Int32Array {
    return this.#encoder.encode(place === 0 ? statementOf(key) : ` ${statementOf(key)}`);
  }

  /** How many digits of the key these tokens say, each at its place. */
  right(key: string, tokens: ArrayLike<number>): number {
    return [...key].filter((digit, i) => tokens[i] === this.#digits[Number(digit)]).length;
  }
}

const same = (a: ArrayLike<number>, b: ArrayLike<number>): boolean =>
  a.length === b.length && Array.from(a).every((token, i) => token === b[i]);

import { describe, expected, fail } from '../errors';
import type { Tokenizer } from './tokenizer';

/** What a session can be fed: token ids, text, or either as it arrives. */
export type ModelInput =
  | string
  | Int32Array
  | Uint32Array
  | readonly number[]
  | AsyncIterable<string | Int32Array | Uint32Array | readonly number[]>;

// Characters tokenized at once: some 20 ms of the event loop.
const slice = 1 << 11;
const cut = / (?=\p{L})/u;

/** What the tokens of a model can be. */
export interface Vocabulary {
  readonly size: number;
  readonly tokenizer: Tokenizer | undefined;
}

/** The tokens of an input, in pieces; `total` if it is known before. Checks what can be checked at once. */
export function readInput(
  input: unknown,
  vocabulary: Vocabulary,
  name: string,
): { pieces: AsyncIterable<Int32Array>; total: number | undefined } {
  if (typeof input === 'string') {
    requireTokenizer(vocabulary, name);
    return { pieces: tokensOfText([input], vocabulary, name), total: undefined };
  }
  if (isAsyncIterable(input)) return { pieces: tokensOfStream(input, vocabulary, name), total: undefined };
  const tokens = checkTokens(input, vocabulary, name);
  return { pieces: one(tokens), total: tokens.length };
}

function isAsyncIterable(input: unknown): input is AsyncIterable<unknown> {
  return (
    typeof input === 'object' &&
    input !== null &&
    typeof (input as AsyncIterable<unknown>)[Symbol.asyncIterator] === 'function'
  );
}

async function* one(tokens: Int32Array): AsyncGenerator<Int32Array> {
  yield tokens;
}

function requireTokenizer(vocabulary: Vocabulary, name: string): Tokenizer {
  if (vocabulary.tokenizer) return vocabulary.tokenizer;
  throw fail(
    'ERR_INVALID_ARG_TYPE',
    `Expected token ids for "${name}", because this model has no tokenizer.json, but received a string`,
  );
}

/** A copy of token ids, all of them in the vocabulary. */
function checkTokens(input: unknown, { size }: Vocabulary, name: string): Int32Array {
  const isArray = Array.isArray(input) || input instanceof Int32Array || input instanceof Uint32Array;
  if (!isArray) {
    throw expected('ERR_INVALID_ARG_TYPE', name, 'a string, token ids, or an async iterable of them', input);
  }
  const length = input.length;
  const tokens = new Int32Array(length);
  for (let i = 0; i < length; i++) {
    const token: unknown = input[i];
    if (typeof token !== 'number') throw expected('ERR_INVALID_ARG_TYPE', `${name}[${i}]`, 'a number', token);
    if (!Number.isInteger(token) || token < 0 || token >= size) {
      throw fail(
        'ERR_OUT_OF_RANGE',
        `Expected an integer from 0 to ${size - 1} for "${name}[${i}]" but received ${describe(token)}`,
      );
    }
    tokens[i] = token;
  }
  return tokens;
}

async function* tokensOfStream(
  input: AsyncIterable<unknown>,
  vocabulary: Vocabulary,
  name: string,
): AsyncGenerator<Int32Array> {
  // Text is tokenized as one, however it was cut; ids between two texts end the first.
  const iterator = input[Symbol.asyncIterator]();
  let ended = false;
  let ids: unknown;
  async function* texts(): AsyncGenerator<string> {
    for (;;) {
      const { done, value } = await iterator.next();
      if (done) {
        ended = true;
        return;
      }
      if (typeof value !== 'string') {
        ids = value;
        return;
      }
      requireTokenizer(vocabulary, name);
      yield value;
    }
  }
  try {
    while (!ended) {
      ids = undefined;
      yield* tokensOfText(texts(), vocabulary, name);
      if (ids !== undefined) yield checkTokens(ids, vocabulary, name);
    }
  } finally {
    if (!ended) await iterator.return?.();
  }
}

async function* tokensOfText(
  texts: Iterable<string> | AsyncIterable<string>,
  vocabulary: Vocabulary,
  name: string,
): AsyncGenerator<Int32Array> {
  const { tokenizer } = vocabulary;
  let rest = '';
  for await (const text of texts) {
    rest += text;
    if (!tokenizer?.cuttable) continue;
    while (rest.length > 2 * slice) {
      const found = rest.slice(slice).search(cut);
      if (found < 0) break; // no words: it waits for more
      const at = slice + found;
      yield checkTokens(tokenizer.encode(rest.slice(0, at)), vocabulary, name);
      rest = rest.slice(at);
      await new Promise(setImmediate); // others' turn
    }
  }
  if (rest !== '') yield checkTokens(tokenizer?.encode(rest), vocabulary, name);
}

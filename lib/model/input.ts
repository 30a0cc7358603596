import { types } from 'node:util';
import { checkArray } from '../config';
import { describe, expected, fail } from '../errors';
import { newTokens } from './arrays';
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
const mostTokens = 2 ** 30;
const cut = / (?=\p{L})|(?<=\n)(?=\p{L})/u;

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
  try {
    return (
      typeof input === 'object' &&
      input !== null &&
      typeof (input as AsyncIterable<unknown>)[Symbol.asyncIterator] === 'function'
    );
  } catch {
    return false; // a revoked proxy
  }
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
export function checkTokens(input: unknown, { size }: Vocabulary, name: string): Int32Array {
  const typed = types.isInt32Array(input) || types.isUint32Array(input);
  if (!typed && !isArrayLike(input)) {
    throw expected('ERR_INVALID_ARG_TYPE', name, 'a string, token ids, or an async iterable of them', input);
  }
  const given = input as ArrayLike<unknown>;
  const length = typed ? given.length : checkArray(input, name, 0, mostTokens);
  const tokens = newTokens(length);
  for (let i = 0; i < length; i++) {
    const token = given[i];
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

function isArrayLike(input: unknown): boolean {
  try {
    return Array.isArray(input);
  } catch {
    return false; // a revoked proxy
  }
}

async function* tokensOfStream(
  input: AsyncIterable<unknown>,
  vocabulary: Vocabulary,
  name: string,
): AsyncGenerator<Int32Array> {
  // Text is tokenized as one, however it was cut; ids between two texts end the first.
  const iterator = input[Symbol.asyncIterator]();
  let ended = false;
  let other: { value: unknown } | undefined; // what is no text
  async function* texts(): AsyncGenerator<string> {
    for (;;) {
      const { done, value } = await next();
      if (done) return;
      if (typeof value !== 'string') {
        other = { value };
        return;
      }
      requireTokenizer(vocabulary, name);
      yield value;
    }
  }
  async function next(): Promise<IteratorResult<unknown>> {
    let ending = true; // unless it gives something
    try {
      const result: unknown = await iterator.next();
      if (typeof result !== 'object' || result === null)
        throw expected('ERR_INVALID_ARG_TYPE', name, 'an iterator that gives objects', result);
      ending = Boolean((result as IteratorResult<unknown>).done);
      return result as IteratorResult<unknown>;
    } finally {
      ended = ending;
    }
  }
  try {
    while (!ended) {
      other = undefined;
      yield* tokensOfText(texts(), vocabulary, name);
      const found = other as { value: unknown } | undefined;
      if (found) yield checkTokens(found.value, vocabulary, name);
    }
  } finally {
    // Nobody waits for it, and what it says then is of no interest.
    if (!ended) Promise.resolve(iterator.return?.()).catch(() => {});
  }
}

async function* tokensOfText(
  texts: Iterable<string> | AsyncIterable<string>,
  vocabulary: Vocabulary,
  name: string,
): AsyncGenerator<Int32Array> {
  const { tokenizer } = vocabulary;
  let rest = '';
  let searched = 0; // no place to cut before
  for await (const text of texts) {
    rest += text;
    if (!tokenizer?.cuttable) continue;
    while (rest.length > 2 * slice) {
      const from = Math.max(slice, searched);
      const found = rest.slice(from).search(cut);
      if (found < 0) {
        searched = rest.length - 2; // no words: it waits for more
        break;
      }
      const at = from + found;
      searched = 0;
      yield checkTokens(tokenizer.encode(rest.slice(0, at)), vocabulary, name);
      rest = rest.slice(at);
      await new Promise(setImmediate); // others' turn
    }
  }
  if (rest !== '') yield checkTokens(tokenizer?.encode(rest), vocabulary, name);
}

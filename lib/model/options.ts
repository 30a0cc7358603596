import { randomInt } from 'node:crypto';
import { checkSignal } from '../abort';
import { checkArray, readRecord } from '../config';
import { expected, fail } from '../errors';
import type { FeedOptions } from './feed';
import type { Plan } from './generate';
import type { Vocabulary } from './input';
import { greedy, sampling } from './sampler';

export interface GenerateOptions {
  /** How many tokens at most, 0 or more. */
  maxTokens: number;
  /** 0, the default, takes the likeliest token; above, tokens are drawn from softmax(logits / temperature). */
  temperature?: number;
  /** Draw among so many of the likeliest only, at least 1. Default: all. */
  topK?: number;
  /** Of the draw, a 32-bit whole number: the same seed draws the same tokens. Default: a random one. */
  seed?: number;
  /**
   * Token ids or texts that end the generation, one or several. A stop token is neither returned nor taken by the session;
   * the text ends before a stop text, whose tokens are returned and taken.
   */
  stop?: number | string | readonly (number | string)[];
  /** Aborts: rejects with ABORT_ERR; the session keeps the tokens generated until then. */
  signal?: AbortSignal;
}

const feedKeys = new Set(['signal', 'onProgress']);
const generateKeys = new Set(['maxTokens', 'temperature', 'topK', 'seed', 'stop', 'signal']);

export function readFeedOptions(options: unknown): FeedOptions {
  if (options === undefined) return {};
  const { signal, onProgress } = readRecord(options, 'options', feedKeys);
  if (onProgress !== undefined && typeof onProgress !== 'function')
    throw expected('ERR_INVALID_ARG_TYPE', 'options.onProgress', 'a function', onProgress);
  const checked = checkSignal(signal);
  return {
    ...(checked && { signal: checked }),
    ...(onProgress !== undefined && { onProgress: onProgress as NonNullable<FeedOptions['onProgress']> }),
  };
}

function whole(name: string, value: unknown, least: number, most: number): number {
  if (typeof value !== 'number') throw expected('ERR_INVALID_ARG_TYPE', name, 'a number', value);
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw expected('ERR_OUT_OF_RANGE', name, `an integer from ${least} to ${most}`, value);
}

/** `index` counts the sessions that generate with these options: each draws its own tokens. */
export function readGenerateOptions(options: unknown, vocabulary: Vocabulary): (index: number) => Plan {
  const given = readRecord(options, 'options', generateKeys);
  const maxTokens = whole('options.maxTokens', given.maxTokens, 0, Number.MAX_SAFE_INTEGER);
  const { temperature = 0 } = given;
  if (typeof temperature !== 'number')
    throw expected('ERR_INVALID_ARG_TYPE', 'options.temperature', 'a number', temperature);
  if (!(temperature >= 0 && temperature < Infinity))
    throw expected('ERR_OUT_OF_RANGE', 'options.temperature', 'a finite number of at least 0', temperature);
  const topK =
    given.topK === undefined ? Infinity : whole('options.topK', given.topK, 1, Number.MAX_SAFE_INTEGER);
  const seed =
    given.seed === undefined ? randomInt(2 ** 32) : whole('options.seed', given.seed, 0, 2 ** 32 - 1);
  const { tokens: stopTokens, texts: stopTexts } = readStop(given.stop, vocabulary);
  const signal = checkSignal(given.signal);
  return (index) => ({
    maxTokens,
    sampler: temperature === 0 ? greedy : sampling(temperature, topK, seed + index),
    stopTokens,
    stopTexts,
    signal,
  });
}

function readStop(stop: unknown, { size, tokenizer }: Vocabulary): { tokens: Set<number>; texts: string[] } {
  const tokens = new Set<number>();
  const texts: string[] = [];
  const add = (value: unknown, name: string) => {
    if (typeof value === 'number') {
      tokens.add(whole(name, value, 0, size - 1));
    } else if (typeof value !== 'string') {
      throw expected('ERR_INVALID_ARG_TYPE', name, 'a token id or a string', value);
    } else if (value === '') {
      throw fail('ERR_OUT_OF_RANGE', `Expected a text that is not empty for "${name}"`);
    } else if (!tokenizer) {
      throw fail(
        'ERR_INVALID_ARG_TYPE',
        `Expected token ids for "${name}", because this model has no tokenizer.json`,
      );
    } else {
      texts.push(value);
    }
  };
  if (stop === undefined) return { tokens, texts };
  if (typeof stop === 'number' || typeof stop === 'string') {
    add(stop, 'options.stop');
  } else {
    const length = checkArray(stop, 'options.stop', 0, 1024);
    for (let i = 0; i < length; i++) add((stop as unknown[])[i], `options.stop[${i}]`);
  }
  return { tokens, texts };
}

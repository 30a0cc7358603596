import { basename } from 'node:path';
import type { Model } from '../../index';
import { bytes, count, percent, table } from '../format';
import { QUESTION, statementOf } from '../passkey/task';
import type { DemoResult, DemoSettings, HiddenKey } from './run';

/** What is about to happen, printed before the long part. */
export function introduction(
  directory: string,
  model: Model,
  { tokens, seed, haystack }: DemoSettings,
  { key, place }: HiddenKey,
): string {
  const { layers, heads, headDim, segmentLength, rule } = model.config;
  const rows = [
    ['model', `${basename(directory)}: ${layers} layers, ${heads} heads of ${headDim}, rule ${rule}`],
    ['', `${bytes(model.byteLength)} of weights; attention reaches back ${segmentLength} tokens at most,`],
    ['', 'what came before is in a memory of constant size'],
    ['haystack', haystack === 'filler' ? 'the five sentences of the task, in a cycle' : 'a novel'],
    ['hidden', `"${statementOf(key)}"`],
    ['', `at token ${count(place)}, depth ${percent(place / tokens)}, drawn with --seed ${seed}`],
    ['', ''],
  ];
  return [`A pass key in ${count(tokens)} tokens, and a trained model`, '', table(rows, '<<')].join('\n');
}

export function report({ settings, key, answer, right, reset, ...result }: DemoResult): string {
  const { atStart, atEnd, keyValueCache } = result.bytes;
  const { tokens, seed, depth, haystack } = settings;
  const rows = [
    ['asked', `"${QUESTION.trim()}"`],
    ['answer', right ? `${answer}: right` : `${show(answer)}: WRONG, it is ${key}`],
    ['reset', `${show(reset)}: what the same session says, emptied before the question`],
    ['state', `${bytes(atStart)} before the first token, ${bytes(atEnd)} after the last`],
    [
      'a cache',
      `of keys and values would hold ${bytes(keyValueCache)} by now, ${count(keyValueCache / atEnd)} times as much`,
    ],
    [
      'time',
      `${count(result.fed)} tokens in ${result.seconds.toFixed(1)} s: ${count(result.tokensPerSecond)} tokens/s`,
    ],
    [
      'repeat',
      `--seed ${seed} --tokens ${tokens} --haystack ${haystack}${depth === undefined ? '' : ` --depth ${depth}`}`,
    ],
  ];
  return table(rows, '<<');
}

/** Digits as they are; anything else could be anything. */
const show = (text: string): string => (/^\d+$/.test(text) ? text : JSON.stringify(text));

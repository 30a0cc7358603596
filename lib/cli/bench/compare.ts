import type { Result, Spread } from './run';
import { nameOf } from './work';

export interface Change {
  what: string;
  /** Time now over time then: above 1 is slower. */
  ratio: number;
  /** How far from 1 the ratio may be by chance: both spreads. */
  noise: number;
  verdict: 'slower' | 'faster' | 'the same';
}

const keyOf = (result: Result) => {
  const { heads, kvHeads, headDim, segment, dtype, rule, threads } = result;
  const shape = `${heads}/${kvHeads} heads of ${headDim}, segments of ${segment}, ${threads} threads`;
  return `${nameOf(result)} ${dtype} ${rule}, ${shape}`;
};

const relativeSpread = ({ min, median, max }: Spread) => (max - min) / 2 / median;

/** Case by case, for what both measured; the first contender is infini-stream. */
export function compare(before: Result[], now: Result[]): Change[] {
  const old = new Map(before.map((result) => [keyOf(result), result.contenders[0]]));
  return now.flatMap((result) => {
    const what = keyOf(result);
    const then = old.get(what);
    if (!then) return [];
    const today = result.contenders[0];
    const ratio = today.microsecondsPerToken.median / then.microsecondsPerToken.median;
    const noise = relativeSpread(today.microsecondsPerToken) + relativeSpread(then.microsecondsPerToken);
    const verdict = Math.abs(ratio - 1) <= noise ? 'the same' : ratio > 1 ? 'slower' : 'faster';
    return [{ what, ratio, noise, verdict }];
  });
}

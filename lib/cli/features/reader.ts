import type { Random } from '../random';
import { CLOSED, contextAt, type Features, OPEN } from './features';

/** A_mem of one query row, as `stream.retrieveSync({ q })` gives it. */
export type Retrieve = (q: Float32Array) => ArrayLike<number>;

const ZERO = '0'.charCodeAt(0);

/** The digit whose code lies nearest to what the memory answers; drawn at random where the answer says nothing. */
export function nearestDigit(answer: ArrayLike<number>, features: Features, random: Random): number {
  let best: number[] = [];
  let most = Number.NEGATIVE_INFINITY;
  for (let digit = 0; digit < 10; digit++) {
    const code = features.code(ZERO + digit);
    let score = 0;
    for (let i = 0; i < code.length; i++) score += code[i] * answer[i];
    if (score > most) best = [];
    if (score >= most) best.push(digit);
    most = Math.max(most, score);
  }
  return best.length === 1 ? best[0] : (best[random.below(best.length)] ?? random.below(10));
}

/**
 * Reads a pass key digit by digit: the query is the marker, the label and the digits read SO FAR, right or wrong. The
 * key itself is not known here.
 */
export function readKey(
  retrieve: Retrieve,
  features: Features,
  marker: string,
  label: string,
  digits: number,
  random: Random,
): string {
  const { heads, headDim } = features.shape;
  const q = new Float32Array(heads * headDim);
  let text = `${marker}${label} is `;
  let key = '';
  while (key.length < digits) {
    q.fill(CLOSED);
    const context = contextAt(text, marker, digits);
    if (context !== null) features.mark(q, context, OPEN);
    const digit = String(nearestDigit(retrieve(q), features, random));
    key += digit;
    text += digit;
  }
  return key;
}

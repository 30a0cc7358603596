import { checkArray } from '../config';
import { product, sum } from './matrix';
import {
  checkFinite,
  checkFollows,
  checkSameShape,
  checkTokens,
  readTransition,
  type Transition,
} from './transition';

const most = 4096;

/**
 * What consecutive parts of a text do one after the other, given in the order of the text: A = A2 A1, B = A2 B1 + B2,
 * in float64, rounded to float32 at the end; however parts are grouped, the same within that rounding. Works on the
 * calling thread: kvHeads headDim^2 (headDim + valueDim) multiplications for each further part of the delta rule, or kvHeads
 * headDim^2 valueDim when the first is a text's beginning, which has no A.
 * @throws ERR_INVALID_ARG_TYPE, ERR_SHAPE, and ERR_OUT_OF_RANGE: no transitions or more than 4096, configurations that
 * differ, a part of the delta rule that was not recorded after those before it, numbers beyond their range.
 */
export function composeTransitions(transitions: readonly Transition[]): Transition {
  const length = checkArray(transitions, 'transitions', 1, most);
  const parts = Array.from({ length }, (_, i) => readTransition(transitions[i], `transitions[${i}]`));
  for (const [i, part] of parts.entries()) checkSameShape(`transitions[${i}]`, part, parts[0]);
  return composed(parts, 'transitions');
}

/** The same for transitions that are known to be whole, and of one shape. */
export function composed(parts: readonly Transition[], name: string): Transition {
  const { kvHeads, headDim, valueDim, before } = parts[0];
  let { tokens, normalizer }: Transition = parts[0];
  let [A, B]: [Float32Array | Float64Array | null, Float32Array | Float64Array] = [parts[0].A, parts[0].B];
  for (const [i, next] of parts.entries()) {
    if (i === 0) continue;
    if (before) checkFollows(`${name}[${i}]`, next, sum(before, normalizer));
    if (A && next.A) A = product(next.A, A, kvHeads, headDim, headDim);
    B = sum(next.A ? product(next.A, B, kvHeads, headDim, valueDim) : B, next.B);
    normalizer = sum(normalizer, next.normalizer);
    tokens += next.tokens;
  }
  const total = { ...parts[0], tokens, A: A && new Float32Array(A), B: new Float32Array(B), normalizer };
  checkTokens(tokens, name);
  for (const key of ['A', 'B', 'normalizer'] as const) {
    if (total[key]) checkFinite(total[key], `${name}.${key}`);
  }
  return total;
}

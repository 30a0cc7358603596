import { checkArray } from '../config';
import { expected } from '../errors';
import { product, sum } from './matrix';
import { checkFinite, checkFollows, checkSameShape, readTransition, type Transition } from './transition';

const most = 4096;

/**
 * What consecutive parts of a text do one after the other, given in the order of the text: A = A2 A1, B = A2 B1 + B2.
 * Any grouping gives the same within rounding of float64. Works on the calling thread: about 2 kvHeads headDim²
 * (headDim + valueDim) multiplications for each further part of the delta rule.
 * @throws ERR_INVALID_ARG_TYPE, ERR_SHAPE, and ERR_OUT_OF_RANGE: no transitions or more than 4096, configurations that
 * differ, a part of the delta rule that was not recorded after those before it, numbers that are not finite.
 */
export function composeTransitions(transitions: readonly Transition[]): Transition {
  const length = checkArray(transitions, 'transitions', 1, most);
  return composed(
    Array.from({ length }, (_, i) => readTransition(transitions[i], `transitions[${i}]`)),
    'transitions',
  );
}

/** The same for transitions that are known to be whole. */
export function composed(transitions: readonly Transition[], name: string): Transition {
  const [first, ...rest] = transitions;
  const total = rest.reduce((before, next, i) => {
    checkSameShape(`${name}[${i + 1}]`, next, first);
    if (first.before) checkFollows(`${name}[${i + 1}]`, next, sum(first.before, before.normalizer));
    return followed(before, next);
  }, first);
  if (!Number.isSafeInteger(total.tokens))
    throw expected('ERR_OUT_OF_RANGE', `${name}.tokens`, 'a sum up to 2^53 - 1', total.tokens);
  for (const key of ['A', 'B', 'normalizer'] as const) checkFinite(total[key] ?? [], `${name}.${key}`);
  return total;
}

function followed(first: Transition, second: Transition): Transition {
  const { kvHeads, headDim, valueDim } = first;
  const moved = second.A ? product(second.A, first.B, kvHeads, headDim, valueDim) : first.B;
  return {
    ...first,
    tokens: first.tokens + second.tokens,
    A: first.A && second.A ? product(second.A, first.A, kvHeads, headDim, headDim) : (second.A ?? first.A),
    B: sum(moved, second.B),
    normalizer: sum(first.normalizer, second.normalizer),
  };
}

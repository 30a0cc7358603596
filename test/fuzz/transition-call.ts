import { applyTransition, composeTransitions, mergeStreams, type Transition } from '../../lib';
import { type Subject, Violation } from './subject';
import type { World } from './world';

/** What a stream did to its memory: done to an empty one it is the same memory; spoiled it is refused, or is some memory. */
export function transitionCall(world: World): void {
  const { rng, hostile } = world;
  const subject = world.subject();
  let exported: Transition | undefined;
  world.try('exportTransition', () => {
    exported = subject.stream.exportTransition();
  });
  if (exported) repeat(world, subject, exported);
  const { kvHeads, headDim, valueDim, segmentLength, rule } = subject.stream.config;
  const made: Transition = exported ?? {
    ...{ kvHeads, headDim, valueDim, segmentLength, rule },
    tokens: segmentLength,
    A: rng.pick([null, new Float32Array(kvHeads * headDim * headDim)]),
    B: new Float32Array(kvHeads * headDim * valueDim),
    normalizer: new Float64Array(kvHeads * headDim),
    before: rule === 'delta' ? new Float64Array(kvHeads * headDim) : null,
  };
  const spoiled: Record<string, unknown> = { ...made };
  for (let i = rng.int(1, 2); i > 0; i--) spoiled[rng.pick(Object.keys(made))] = hostile.anything();
  const given = rng.pick<() => unknown>([
    () => spoiled,
    () => hostile.lure(spoiled),
    () => hostile.proxy(spoiled),
    hostile.anything,
  ])() as Transition;
  hostile.notes.push('transition');
  rng.pick<() => void>([
    () => world.try('applyTransition', () => applyTransition(subject.stream, given).close()),
    () => world.try('composeTransitions', () => composeTransitions([made, given])),
    () => world.try('mergeStreams', () => mergeStreams([subject.stream, given as never]).close()),
  ])();
}

function repeat(world: World, { stream }: Subject, transition: Transition): void {
  using empty = world.safe.createStream(stream.config);
  using heir = applyTransition(empty, transition);
  const [one, other] = [heir.memory(), stream.memory()];
  const same =
    heir.tokens === stream.tokens &&
    one.matrix.every((x, i) => x === other.matrix[i]) && // 0 is -0
    one.normalizer.every((z, i) => z === other.normalizer[i]);
  if (!same) throw new Violation('a transition makes another memory of nothing');
}

import type { Device, DType, MemoryStream, Rule, StreamConfig, Transition } from '../../lib';
import { composeTransitions } from '../../lib';
import { errorsByHead } from '../support/accuracy';
import { onCuda } from '../support/device';
import { cut, dataOf, type MadeInput, makeInput } from '../support/inputs';
import type { Rng } from '../support/rng';
import { emptyTensor } from '../support/tensors';

/** One text, as its parts: whole segments each. */
export interface Text {
  config: StreamConfig & { rule: Rule };
  whole: MadeInput;
  parts: MadeInput[];
}

export const RULES: readonly Rule[] = ['linear', 'delta'];

/** Of M and z, per head; the products of 16-bit streams are less exact on CUDA (test/support/accuracy). */
export const allowed = (dtype: DType): number => (onCuda && dtype !== 'float32' ? 2e-4 : 1e-5);

export function makeText(
  device: Device,
  config: StreamConfig & { rule: Rule },
  segments: readonly number[],
  rng: Rng,
): Text {
  const stream = device.createStream(config);
  const { segmentLength } = stream.config;
  const sizes = segments.map((count) => count * segmentLength);
  const whole = makeInput(
    stream.config,
    sizes.reduce((a, b) => a + b),
    rng,
  );
  stream.close();
  return { config, whole, parts: cut(whole, sizes) };
}

export async function record(
  device: Device,
  config: StreamConfig,
  part: MadeInput,
  normalizer?: Float64Array,
): Promise<Transition> {
  using recorder = device.createRecorder(config, { normalizer });
  const { k, v } = dataOf(part);
  await recorder.absorb({ k, v });
  return recorder.exportTransition();
}

/** Pass one: the sum of sigma(k) of each part. Segments may be shorter there, and values one zero. */
export async function normalizersOf(
  device: Device,
  { config, parts }: Pick<Text, 'config' | 'parts'>,
): Promise<Float64Array[]> {
  const { kvHeads = config.heads, dtype = 'float32' } = config;
  const sums: Float64Array[] = [];
  for (const { tokens, k } of parts) {
    using recorder = device.createRecorder({ ...config, rule: 'linear', valueDim: 1, segmentLength: 4 });
    await recorder.absorb({ k: k.data, v: emptyTensor(dtype, tokens * kvHeads) });
    sums.push(recorder.exportTransition().normalizer);
  }
  return sums;
}

export const add = (a: Float64Array, b: Float64Array): Float64Array => a.map((x, i) => x + b[i]);

/** Both passes. */
export async function transitionsOf(
  device: Device,
  text: Pick<Text, 'config' | 'parts'>,
): Promise<Transition[]> {
  const sums = await normalizersOf(device, text);
  const transitions: Transition[] = [];
  let before = new Float64Array(sums[0].length);
  for (const [i, part] of text.parts.entries()) {
    transitions.push(await record(device, text.config, part, before));
    before = add(before, sums[i]) as Float64Array<ArrayBuffer>;
  }
  return transitions;
}

/** The largest error of M or z of a head. */
export function memoryError(actual: MemoryStream, wanted: MemoryStream): number {
  const { kvHeads, headDim, valueDim } = wanted.config;
  const [found, sought] = [actual.memory(), wanted.memory()];
  return Math.max(
    ...errorsByHead(
      Float64Array.from(found.matrix),
      Float64Array.from(sought.matrix),
      kvHeads,
      headDim * valueDim,
    ),
    ...errorsByHead(found.normalizer, sought.normalizer, kvHeads, headDim),
  );
}

/** The largest difference of A, B or normalizer, as a share of its largest number. */
export function transitionError(actual: Transition, wanted: Transition): number {
  const arrays = ({ A, B, normalizer }: Transition) => [A ?? [], B, normalizer].map((one) => Array.from(one));
  const wantedArrays = arrays(wanted);
  return Math.max(
    ...arrays(actual).map((array, i) => {
      const largest = wantedArrays[i].reduce((most, x) => Math.max(most, Math.abs(x)), 1e-300);
      if (array.length !== wantedArrays[i].length) return Number.POSITIVE_INFINITY;
      return array.reduce((most, x, j) => Math.max(most, Math.abs(x - wantedArrays[i][j])), 0) / largest;
    }),
  );
}

/** The transitions before each part, composed; undefined before the first. */
export const prefixes = (transitions: readonly Transition[]): (Transition | undefined)[] =>
  transitions.map((_, i) => (i === 0 ? undefined : composeTransitions(transitions.slice(0, i))));

import { types } from 'node:util';
import { readRecord } from '../config';
import { describe, expected, fail } from '../errors';
import { lengthOf } from '../tensor';
import type { ResolvedConfig, Rule } from '../types';

/** What of a configuration decides how the memory changes. */
export type MemoryShape = Pick<ResolvedConfig, 'kvHeads' | 'headDim' | 'valueDim' | 'segmentLength' | 'rule'>;

/**
 * What some whole segments do to a memory, whatever it held before them: M' = A M + B and z' = z + normalizer. A plain
 * object of numbers and typed arrays: it can be posted to a worker, or serialized (`v8.serialize`) for another machine.
 */
export interface Transition {
  readonly kvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
  readonly segmentLength: number;
  readonly rule: Rule;
  /** Of those segments. */
  readonly tokens: number;
  /**
   * `[kvHeads, headDim, headDim]`. Null is the identity: for the linear rule, and at the beginning of a text, where there is
   * nothing to multiply.
   */
  readonly A: Float32Array | null;
  /** `[kvHeads, headDim, valueDim]`. */
  readonly B: Float32Array;
  /** The sum of sigma(k) over the tokens, `[kvHeads, headDim]`. */
  readonly normalizer: Float64Array;
  /** For the delta rule: the z that A and B take for granted, of all tokens before. Null for the linear rule. */
  readonly before: Float64Array | null;
}

const shapeKeys = ['kvHeads', 'headDim', 'valueDim', 'segmentLength', 'rule'] as const;
const finite = Number.isFinite;

type Numbers = Float32Array | Float64Array;

const keys: ReadonlySet<string> = new Set([...shapeKeys, 'tokens', 'A', 'B', 'normalizer', 'before']);
const sizes = { kvHeads: 1024, headDim: 256, valueDim: 256, segmentLength: 65536 };

export const shapeOf = ({ kvHeads, headDim, valueDim, segmentLength, rule }: MemoryShape): MemoryShape => ({
  kvHeads,
  headDim,
  valueDim,
  segmentLength,
  rule,
});

/** What the tokens of a stream did to the empty memory with which it began. */
export function transitionFromEmpty(
  config: MemoryShape,
  tokens: number,
  { matrix, normalizer }: { matrix: Float32Array; normalizer: Float64Array },
): Transition {
  const before = config.rule === 'delta' ? new Float64Array(normalizer.length) : null;
  return { ...shapeOf(config), tokens, A: null, B: matrix, normalizer, before };
}

export function checkSameShape(name: string, given: MemoryShape, wanted: MemoryShape): void {
  for (const key of shapeKeys) {
    if (given[key] === wanted[key]) continue;
    throw fail(
      'ERR_OUT_OF_RANGE',
      `Expected ${key} ${describe(wanted[key])} for "${name}" but received ${describe(given[key])}`,
    );
  }
}

/** A memory changes by whole segments, so that is what can be exported, merged and gone on from. */
export function checkSegmentBorder(name: string, tokens: number, segmentLength: number): void {
  const open = tokens % segmentLength;
  if (open === 0) return;
  throw fail('ERR_OUT_OF_RANGE', `Expected no open segment in "${name}" but it has ${open} tokens`);
}

export function checkTokens(tokens: number, name: string): void {
  if (!Number.isSafeInteger(tokens))
    throw expected('ERR_OUT_OF_RANGE', `${name}.tokens`, 'a sum below 2^53', tokens);
}

/**
 * z sums the same features in another order, or on another device; whatever differs by more than this, as relative norm
 * of a head, is the z of other tokens.
 */
const SAME_NORMALIZER = 1e-4;

/** Whether a transition may follow what has this z. The linear rule takes nothing for granted. */
export function checkFollows(name: string, { before, kvHeads }: Transition, normalizer: Float64Array): void {
  if (!before) return;
  const width = before.length / kvHeads;
  for (let head = 0; head < kvHeads; head++) {
    let [difference, size] = [0, 0];
    for (let i = head * width; i < (head + 1) * width; i++) {
      difference += (before[i] - normalizer[i]) ** 2;
      size += before[i] ** 2;
    }
    if (difference <= SAME_NORMALIZER ** 2 * size) continue;
    throw fail(
      'ERR_OUT_OF_RANGE',
      `Expected "${name}" to be recorded after what is before it, but its "before" is another normalizer`,
    );
  }
}

/** A checked copy of what came from anywhere: each property is read once, and shared memory too. */
export function readTransition(value: unknown, name: string): Transition {
  const given = readRecord(value, name, keys);
  const shape = readShape(given, name);
  const { kvHeads, headDim, valueDim, segmentLength } = shape;
  const tokens = readInteger(given.tokens, `${name}.tokens`, 0, Number.MAX_SAFE_INTEGER);
  checkSegmentBorder(name, tokens, segmentLength);
  const delta = shape.rule === 'delta';
  const before = delta
    ? readNormalizer(given.before, `${name}.before`, shape)
    : readNull(given, 'before', name);
  const identity = given.A === null || !delta;
  const A = identity
    ? readNull(given, 'A', name)
    : readMatrix(given.A, `${name}.A`, kvHeads * headDim * headDim);
  if (identity && before?.some((number) => number !== 0))
    throw expected('ERR_INVALID_ARG_TYPE', `${name}.A`, 'a Float32Array', null);
  return {
    ...shape,
    tokens,
    A,
    B: readMatrix(given.B, `${name}.B`, kvHeads * headDim * valueDim),
    normalizer: readNormalizer(given.normalizer, `${name}.normalizer`, shape),
    before,
  };
}

function readShape(given: Record<string, unknown>, name: string): MemoryShape {
  const size = (key: keyof typeof sizes) => readInteger(given[key], `${name}.${key}`, 1, sizes[key]);
  const { rule } = given;
  if (typeof rule !== 'string') throw expected('ERR_INVALID_ARG_TYPE', `${name}.rule`, 'a string', rule);
  if (rule !== 'linear' && rule !== 'delta')
    throw expected('ERR_OUT_OF_RANGE', `${name}.rule`, "'linear' or 'delta'", rule);
  return {
    kvHeads: size('kvHeads'),
    headDim: size('headDim'),
    valueDim: size('valueDim'),
    segmentLength: size('segmentLength'),
    rule,
  };
}

function readInteger(value: unknown, name: string, least: number, most: number): number {
  if (typeof value !== 'number') throw expected('ERR_INVALID_ARG_TYPE', name, 'a number', value);
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw expected('ERR_OUT_OF_RANGE', name, `an integer from ${least} to ${most}`, value);
}

function readNull(given: Record<string, unknown>, key: string, name: string): null {
  if (given[key] === null) return null;
  throw expected('ERR_INVALID_ARG_TYPE', `${name}.${key}`, "null for rule 'linear'", given[key]);
}

/** A z: of a transition, or of the tokens before one. */
export function readNormalizer(
  value: unknown,
  name: string,
  { kvHeads, headDim }: Pick<MemoryShape, 'kvHeads' | 'headDim'>,
): Float64Array {
  if (!types.isFloat64Array(value)) throw expected('ERR_INVALID_ARG_TYPE', name, 'a Float64Array', value);
  checkLength(value, name, kvHeads * headDim);
  const numbers = new Float64Array(value);
  checkFinite(numbers, name);
  const at = numbers.findIndex((number) => number < 0);
  if (at < 0) return numbers;
  throw expected('ERR_OUT_OF_RANGE', `${name}[${at}]`, 'no number below 0', numbers[at]);
}

function readMatrix(value: unknown, name: string, length: number): Float32Array {
  if (!types.isFloat32Array(value)) throw expected('ERR_INVALID_ARG_TYPE', name, 'a Float32Array', value);
  checkLength(value, name, length);
  const numbers = new Float32Array(value);
  checkFinite(numbers, name);
  return numbers;
}

function checkLength(array: Numbers, name: string, length: number): void {
  const found = lengthOf(array);
  if (found !== length)
    throw fail('ERR_SHAPE', `Expected ${length} elements for "${name}" but received ${found}`);
}

export function checkFinite(numbers: Numbers, name: string): void {
  for (let i = 0; i < numbers.length; i++) {
    if (!finite(numbers[i]))
      throw expected('ERR_OUT_OF_RANGE', `${name}[${i}]`, 'a finite number', numbers[i]);
  }
}

import { describe, expected, fail } from './errors';
import type { NativeConfig } from './native';
import type { ResolvedConfig } from './types';

const configKeys = new Set([
  'heads',
  'kvHeads',
  'headDim',
  'valueDim',
  'segmentLength',
  'rule',
  'gate',
  'scale',
  'rope',
  'emptyRead',
  'dtype',
]);

function isRecord(value: unknown): value is object {
  try {
    return typeof value === 'object' && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
  } catch {
    return false; // a revoked proxy
  }
}

/** The length of an array, which may be a proxy and say anything. */
export function checkArray(value: unknown, name: string, least: number, most: number): number {
  let isArray = false;
  try {
    isArray = Array.isArray(value);
  } catch {
    // a revoked proxy
  }
  if (!isArray) throw expected('ERR_INVALID_ARG_TYPE', name, 'an array', value);
  const length: unknown = (value as unknown[]).length;
  if (Number.isInteger(length) && (length as number) >= least && (length as number) <= most)
    return length as number;
  throw fail(
    'ERR_OUT_OF_RANGE',
    `Expected ${least} to ${most} elements for "${name}" but received ${describe(length)}`,
  );
}

/** An object without unknown own keys. Its getters are user code: whoever reads it, reads each known key once. */
export function checkRecord(
  value: unknown,
  name: string,
  keys: ReadonlySet<string>,
): Record<string, unknown> {
  if (!isRecord(value)) {
    throw expected('ERR_INVALID_ARG_TYPE', name, 'an object', value);
  }
  for (const key of Object.keys(value)) {
    if (!keys.has(key)) {
      const known = [...keys].map((one) => `'${one}'`).join(', ');
      throw fail(
        'ERR_INVALID_ARG_TYPE',
        `Expected only the keys ${known} in "${name}" but received ${describe(key)}`,
      );
    }
  }
  return value as Record<string, unknown>;
}

/** A copy of the known keys of such an object. */
export function readRecord(value: unknown, name: string, keys: ReadonlySet<string>): Record<string, unknown> {
  const given = checkRecord(value, name, keys);
  const record: Record<string, unknown> = {};
  for (const key of keys) record[key] = given[key];
  return record;
}

/** The checks that need JavaScript; ranges are checked below, once for every backend. */
export function readConfig(config: unknown): NativeConfig {
  const given = readRecord(config, 'config', configKeys);
  const typed = <T>(key: string, type: 'number' | 'string', needed = false): T | undefined => {
    const value = given[key];
    if (value === undefined && !needed) return undefined;
    if (typeof value !== type) throw expected('ERR_INVALID_ARG_TYPE', `config.${key}`, `a ${type}`, value);
    return value as T;
  };
  return {
    heads: typed<number>('heads', 'number', true) as number,
    headDim: typed<number>('headDim', 'number', true) as number,
    kvHeads: typed('kvHeads', 'number'),
    valueDim: typed('valueDim', 'number'),
    segmentLength: typed('segmentLength', 'number'),
    rule: typed('rule', 'string'),
    scale: typed('scale', 'number'),
    emptyRead: typed('emptyRead', 'string'),
    dtype: typed('dtype', 'string'),
    ropeTheta: readRope(given.rope),
    gate: readGate(given.gate),
  };
}

function readRope(rope: unknown): number | undefined {
  if (rope === undefined || rope === null) return undefined;
  const { theta } = readRecord(rope, 'config.rope', new Set(['theta']));
  if (typeof theta !== 'number')
    throw expected('ERR_INVALID_ARG_TYPE', 'config.rope.theta', 'a number', theta);
  return theta;
}

function readGate(gate: unknown): number | number[] | undefined {
  if (gate === undefined || typeof gate === 'number') return gate;
  const length = typeof gate === 'object' && gate !== null ? (gate as ArrayLike<unknown>).length : undefined;
  if (typeof length !== 'number') {
    throw expected('ERR_INVALID_ARG_TYPE', 'config.gate', 'a number or an array of numbers', gate);
  }
  if (!(Number.isInteger(length) && length >= 1 && length <= 1024)) {
    throw fail('ERR_SHAPE', `Expected one number per query head for "config.gate" but received ${length}`);
  }
  return Array.from({ length }, (_, head) => {
    const beta = (gate as ArrayLike<unknown>)[head];
    if (typeof beta !== 'number')
      throw expected('ERR_INVALID_ARG_TYPE', `config.gate[${head}]`, 'a number', beta);
    return beta;
  });
}

export function freezeConfig(config: ResolvedConfig): ResolvedConfig {
  Object.freeze(config.gate);
  Object.freeze(config.rope);
  return Object.freeze(config);
}

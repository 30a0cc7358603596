import { readConfig } from '../config';
import { type ErrorCode, fail, type InfiniError, mismatch } from '../errors';
import type { NativeConfig } from '../native';
import type { DType, ResolvedConfig } from '../types';
import { refuse } from './format';

/** The longest text of a configuration has 1024 gates. JSON.parse may take very long over longer ones. */
const MOST_TEXT = 2 ** 16;

/** The text of a number of tokens. */
export function readTokens(text: string): number {
  const tokens = /^(0|[1-9]\d{0,15})$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(tokens)) return tokens;
  throw refuse(mismatch('an integer from 0 to 2^53 - 1', '"tokens" of the metadata', text));
}

/** A JSON object's values by name. */
export function readObject(text: string, place: string): Map<string, unknown> {
  let value: unknown;
  try {
    if (text.length <= MOST_TEXT) value = JSON.parse(text);
  } catch {
    // not JSON
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return new Map(Object.entries(value));
  }
  throw refuse(mismatch('a JSON object', place, text));
}

/** The one text of a configuration. */
export function configText(config: ResolvedConfig): string {
  const { heads, kvHeads, headDim, valueDim, segmentLength, rule, gate, scale, rope, emptyRead, dtype } =
    config;
  const numbers = { heads, kvHeads, headDim, valueDim, segmentLength };
  return JSON.stringify({ ...numbers, rule, gate, scale, rope, emptyRead, dtype });
}

const configKeys = [
  ...['heads', 'kvHeads', 'headDim', 'valueDim', 'segmentLength'],
  ...['rule', 'gate', 'scale', 'rope', 'emptyRead', 'dtype'],
];
const dtypes: readonly unknown[] = ['float32', 'bfloat16', 'float16'] satisfies DType[];

/** Such a text's configuration. What is left to refuse in it, native code refuses. */
export function readConfigText(text: string): { config: ResolvedConfig; given: NativeConfig } {
  const place = '"config" of the metadata';
  const values = readObject(text, place);
  for (const key of configKeys) {
    if (!values.has(key)) throw refuse(mismatch('a value', `"${key}" of the configuration`, undefined));
  }
  const config = Object.fromEntries(values) as unknown as ResolvedConfig;
  const given = asSnapshotErrors(() => readConfig(config));
  for (const key of ['heads', 'kvHeads', 'headDim', 'valueDim', 'segmentLength'] as const) {
    const number = config[key];
    if (!Number.isSafeInteger(number) || number < 1)
      throw refuse(mismatch('an integer above 0', `"${key}" of the configuration`, number));
  }
  if (!dtypes.includes(config.dtype)) {
    const what = dtypes.map((dtype) => `'${dtype}'`).join(' or ');
    throw refuse(mismatch(what, '"dtype" of the configuration', config.dtype));
  }
  if (!Array.isArray(config.gate))
    throw refuse(mismatch('an array', '"gate" of the configuration', config.gate));
  if (configText(config) === text) return { config, given };
  throw refuse(mismatch('the one text that a whole configuration has', place, text));
}

const aboutConfig: readonly (ErrorCode | undefined)[] = [
  'ERR_INVALID_ARG_TYPE',
  'ERR_OUT_OF_RANGE',
  'ERR_SHAPE',
];

/** What is refused in an argument elsewhere is here the fault of a file. */
export function asSnapshotErrors<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw asSnapshotError(error);
  }
}

export function asSnapshotError(error: unknown): unknown {
  const { code, message } = error as Partial<InfiniError>;
  return aboutConfig.includes(code) ? fail('ERR_SNAPSHOT', message as string) : error;
}

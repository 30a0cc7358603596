import { fail, type InfiniError, mismatch } from '../errors';

/** What is said about a model's files. */

export type Json = Record<string, unknown>;

export const isRecord = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A JSON text that must be an object. Of a key given twice the last one counts, as in Python. */
export function parseObject(text: string, name: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw fail('ERR_MODEL', `${name}: expected JSON but received other text: ${(cause as Error).message}`);
  }
  if (!isRecord(value)) throw wrong(name, 'an object', 'the JSON text', value);
  return value;
}

/** "FILE: expected X for PLACE but received V". */
export function wrong(file: string, what: string, place: string, value: unknown, why?: string): InfiniError {
  return fail('ERR_MODEL', `${file}: ${mismatch(what, place, value, why)}`);
}

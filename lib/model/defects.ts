import { describe, fail, type InfiniError } from '../errors';

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

/** "FILE: expected X for PLACE but received V", the one form of messages about a model's files. */
export function wrong(file: string, what: string, place: string, value: unknown, why?: string): InfiniError {
  const received = Array.isArray(value) ? showArray(value) : describe(value);
  const reason = why === undefined ? '' : ` (${why})`;
  return fail('ERR_MODEL', `${file}: expected ${what} for ${place} but received ${received}${reason}`);
}

/** A shape reads `[2, 3]`. */
function showArray(array: readonly unknown[]): string {
  const short = array.length <= 8 && array.every((one) => typeof one === 'number');
  return short ? `[${array.join(', ')}]` : describe(array);
}

/** A name out of a file: it may be of any length and hold any character. */
export function quote(name: string): string {
  return JSON.stringify(name.length > 128 ? `${name.slice(0, 128)}...` : name);
}

import { types } from 'node:util';

/** The stable codes of everything this package throws or rejects with, and the class that carries each. */
export const errorClasses = {
  /** Wrong JavaScript type, missing or unknown key, illegal receiver or constructor. */
  ERR_INVALID_ARG_TYPE: TypeError,
  /** A typed array of another class than the stream's dtype asks for. */
  ERR_DTYPE: TypeError,
  /** A number or name outside its set. */
  ERR_OUT_OF_RANGE: RangeError,
  /** Lengths that do not fit the stream or each other. */
  ERR_SHAPE: RangeError,
  /** NaN or Infinity in q, k or v, or finite inputs that overflow; see {@link NonFiniteError}. */
  ERR_NON_FINITE: RangeError,
  /** The memory now available does not suffice. */
  ERR_OUT_OF_MEMORY: Error,
  /** The stream, tensor, batch or device is closed. */
  ERR_CLOSED: Error,
  /**
   * An asynchronous call on this stream is pending, or one that uses this tensor; or a stream or tensor occurs twice; or a
   * scheduler has no room for a request or a stream.
   */
  ERR_BUSY: Error,
  /** The call's AbortSignal fired; `cause` is the signal's reason. */
  ABORT_ERR: Error,
  /** The device asked for is not here; the message says why. */
  ERR_NO_DEVICE: Error,
  /** A model's files are not what they must be; the message says what is wrong, and where. */
  ERR_MODEL: Error,
  /** A snapshot is not what it must be; the message says what is wrong. */
  ERR_SNAPSHOT: Error,
  /** The device failed. */
  ERR_DEVICE: Error,
} as const;

/** `error.code` of every error of this package. */
export type ErrorCode = keyof typeof errorClasses;

/** An error of this package. */
export interface InfiniError extends Error {
  code: ErrorCode;
}

/** `ERR_NON_FINITE`: where the first offending number is (smallest token, then q before k before v). */
export interface NonFiniteError extends InfiniError {
  code: 'ERR_NON_FINITE';
  tensor: 'q' | 'k' | 'v' | 'output' | 'memory';
  /** Token of the call; for 'memory' the last token of the segment whose absorption overflowed. */
  token: number;
  /** In a step of a prepared batch: the stream, counted as in the batch; `token` is 0 then. */
  stream?: number;
}

export function fail(code: ErrorCode, message: string): InfiniError {
  const error = new errorClasses[code](message) as InfiniError;
  error.code = code;
  Error.captureStackTrace?.(error, fail);
  return error;
}

/** As in Node's own functions: name 'AbortError', code 'ABORT_ERR', the signal's reason as cause. */
export function abortError(reason: unknown): InfiniError {
  const error = new Error('The operation was aborted', { cause: reason }) as InfiniError;
  error.name = 'AbortError';
  error.code = 'ABORT_ERR';
  return error;
}

/** "Expected X for NAME but received V", the one form of every message about an argument. */
export function expected(code: ErrorCode, name: string, what: string, received: unknown): InfiniError {
  return fail(code, `Expected ${what} for "${name}" but received ${describe(received)}`);
}

// The intrinsic getter: a typed array may carry a tag of its own.
const typedArrayName = Object.getOwnPropertyDescriptor(
  Object.getPrototypeOf(Uint8Array.prototype),
  Symbol.toStringTag,
)?.get as () => string;

/** A short, safe description: never runs user code. */
export function describe(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return `'${value.length > 32 ? `${value.slice(0, 32)}...` : value}'`;
    case 'bigint':
      return value < 2n ** 64n && value > -(2n ** 64n) ? `${value}n` : 'a huge bigint';
    case 'symbol':
      return 'a symbol';
    case 'function':
      return 'a function';
    case 'object':
      if (value === null) return 'null';
      if (types.isProxy(value)) return 'an object'; // Array.isArray throws on a revoked one
      if (Array.isArray(value)) return 'an array';
      if (types.isTypedArray(value)) return `a ${typedArrayName.call(value)}`;
      return ArrayBuffer.isView(value) ? 'a DataView' : 'an object';
    default:
      return String(value);
  }
}

/** "expected X for PLACE but received V", the one form of messages about what a file says. */
export function mismatch(what: string, place: string, value: unknown, why?: string): string {
  const received = Array.isArray(value) ? showArray(value) : describe(value);
  const reason = why === undefined ? '' : ` (${why})`;
  return `expected ${what} for ${place} but received ${received}${reason}`;
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

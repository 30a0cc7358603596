import { types } from 'node:util';

const CLASSES: Record<string, { name: string; base: ErrorConstructor }> = {
  ERR_INVALID_ARG_TYPE: { name: 'TypeError', base: TypeError },
  ERR_DTYPE: { name: 'TypeError', base: TypeError },
  ERR_OUT_OF_RANGE: { name: 'RangeError', base: RangeError },
  ERR_SHAPE: { name: 'RangeError', base: RangeError },
  ERR_NON_FINITE: { name: 'RangeError', base: RangeError },
  ERR_OUT_OF_MEMORY: { name: 'Error', base: Error },
  ERR_CLOSED: { name: 'Error', base: Error },
  ERR_BUSY: { name: 'Error', base: Error },
  ABORT_ERR: { name: 'AbortError', base: Error },
  ERR_NO_DEVICE: { name: 'Error', base: Error },
  ERR_MODEL: { name: 'Error', base: Error },
  ERR_SNAPSHOT: { name: 'Error', base: Error },
  ERR_DEVICE: { name: 'Error', base: Error },
};

export interface Failure {
  code: string;
  /** All of these must occur in the message. */
  says?: (string | RegExp)[];
  tensor?: string;
  token?: number;
}

/** The call must throw exactly this failure. */
export function expectThrow(call: () => unknown, failure: Failure): void {
  try {
    call();
  } catch (error) {
    check(error, failure);
    return;
  }
  missing(failure);
}

/** The call must return a promise, not throw, and the promise must reject with exactly this failure. */
export async function expectReject(call: () => Promise<unknown>, failure: Failure): Promise<void> {
  let promise: Promise<unknown>;
  try {
    promise = call();
  } catch (error) {
    throw new Error(`threw instead of rejecting: ${error}`, { cause: error });
  }
  if (!types.isPromise(promise)) throw new Error(`returned no promise but ${String(promise)}`);
  await promise.then(
    () => missing(failure),
    (error) => check(error, failure),
  );
}

function missing(failure: Failure): never {
  throw new Error(`the call succeeded; ${failure.code} was expected`);
}

function check(error: unknown, { code, says = [], tensor, token }: Failure): void {
  if (!types.isNativeError(error)) throw new Error(`not an Error: ${String(error)}`);
  const found = error as Error & { code?: string; tensor?: string; token?: number };
  const { name, base } = CLASSES[code];
  const got = `${found.name} ${found.code}: ${found.message}`;
  if (found.code !== code || found.name !== name || !(found instanceof base)) {
    throw new Error(`expected ${name} ${code} but got ${got}`, { cause: error });
  }
  for (const part of says) {
    const said = typeof part === 'string' ? found.message.includes(part) : part.test(found.message);
    if (!said) throw new Error(`the message does not say ${part}: ${found.message}`);
  }
  expect({ tensor: found.tensor, token: found.token }).toEqual({ tensor, token });
}

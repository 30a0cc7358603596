import { fail } from '../errors';

const allocated = <T>(make: () => T, what: string): T => {
  try {
    return make();
  } catch {
    throw fail('ERR_OUT_OF_MEMORY', `Expected room for ${what} but the allocation failed`);
  }
};
export const newTokens = (count: number): Int32Array =>
  allocated(() => new Int32Array(count), `${count} tokens`);
export const newLogits = (count: number): Float32Array =>
  allocated(() => new Float32Array(count), `${count} logits`);

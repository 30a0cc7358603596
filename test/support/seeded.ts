import { randomInt } from 'node:crypto';
import { Rng } from './rng';

/** Fresh in every run. `SEED=123 npx jest ...` repeats the run that named 123 in its failures. */
export const SEED = process.env.SEED === undefined ? randomInt(2 ** 31) : Number(process.env.SEED);

/** A test whose random numbers depend on SEED and its own name alone, and whose failure names SEED. */
export function seededTest(name: string, body: (rng: Rng) => void | Promise<void>, timeout?: number): void {
  test(
    name,
    async () => {
      try {
        await body(new Rng(mix(SEED, expect.getState().currentTestName ?? name)));
      } catch (error) {
        throw withSeed(error);
      }
    },
    timeout,
  );
}

function mix(seed: number, text: string): number {
  let hash = (seed ^ 0x811c9dc5) >>> 0;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return hash;
}

function withSeed(error: unknown): unknown {
  const note = `[repeat with SEED=${SEED}]`;
  if (!(error instanceof Error)) return new Error(`${note} threw ${String(error)}`);
  // jest prints the stack, which begins with the message.
  const { message, stack } = error;
  error.message = `${note} ${message}`;
  error.stack = stack?.includes(message) ? stack.replace(message, () => error.message) : `${note}\n${stack}`;
  return error;
}

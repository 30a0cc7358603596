import { randomInt } from 'node:crypto';
import { Rng } from './rng';

/** Fresh in every run. `SEED=123 npx jest ...` repeats the run that named 123 in its failures. */
export const SEED = process.env.SEED === undefined ? randomInt(2 ** 31) : Number(process.env.SEED);

/** How often each such test runs, on other numbers each time: REPEAT=100 npx jest ... finds what fails once in a hundred. */
const REPEAT = Number(process.env.REPEAT ?? 1);

/** A test whose random numbers depend on SEED and its own name alone, and whose failure names SEED. */
export function seededTest(name: string, body: (rng: Rng) => void | Promise<void>, timeout?: number): void {
  test(
    name,
    async () => {
      for (let seed = SEED; seed < SEED + REPEAT; seed++) {
        try {
          await body(new Rng(mix(seed, expect.getState().currentTestName ?? name)));
        } catch (error) {
          throw withSeed(error, seed);
        }
      }
    },
    timeout && timeout * REPEAT,
  );
}

function mix(seed: number, text: string): number {
  let hash = (seed ^ 0x811c9dc5) >>> 0;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return hash;
}

function withSeed(error: unknown, seed: number): unknown {
  const note = `[repeat with SEED=${seed}]`;
  if (!(error instanceof Error)) return new Error(`${note} threw ${String(error)}`);
  // jest prints the stack, which begins with the message.
  const { message, stack } = error;
  error.message = `${note} ${message}`;
  error.stack = stack?.includes(message) ? stack.replace(message, () => error.message) : `${note}\n${stack}`;
  return error;
}

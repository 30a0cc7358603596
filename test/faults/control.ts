import { openSync, readSync, writeSync } from 'node:fs';

/** Of which control.h tells; the process was started with the file's name. */
const file = openSync(process.env.INFINI_FAULTS as string, 'r+');
const KINDS = ['host', 'device'] as const;

type Faults = Record<(typeof KINDS)[number], number>;

/** From now on one in so many allocations fails; none at 0. */
export function setFaults(oneIn: Faults, seed: number): void {
  for (const [i, kind] of KINDS.entries())
    writeSync(file, Uint32Array.of(oneIn[kind], seed + i), 0, 8, 16 * i);
}

export const noFaults = (): void => setFaults({ host: 0, device: 0 }, 0);

/** How many allocations failed. */
export function countFaults(): Faults {
  const numbers = new Uint32Array(8);
  readSync(file, numbers, 0, 32, 0);
  return { host: numbers[3], device: numbers[7] };
}

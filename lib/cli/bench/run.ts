import { setTimeout } from 'node:timers/promises';
import { median, quantile } from '../format';
import { type Case, type Contender, type Entry, type Run, Skipped } from './contender';
import type { Floor } from './floor';
import { flopsPerSegment } from './work';

export interface Spread {
  median: number;
  min: number;
  max: number;
}

export interface Measured {
  name: string;
  runs: number;
  microsecondsPerToken: Spread;
  tokensPerSecond: number;
  gflops: number | null;
  /** The floor's time divided by this. */
  ofFloor: number | null;
  /** How many times as fast the first contender is, and how far single rounds are from that. */
  firstIsFaster: Spread | null;
  /** Single tokens, where they were timed. */
  token?: { median: number; p90: number };
  about?: Contender['about'];
}

export interface Result extends Case {
  floor: Floor | null;
  contenders: Measured[];
  skipped: { name: string; why: string }[];
}

export const spread = (values: number[]): Spread => ({
  median: median(values),
  min: Math.min(...values),
  max: Math.max(...values),
});

export interface Effort {
  rounds: number;
  /** At least so long for each contender of a round, in repeated runs. */
  seconds: number;
}

/** The idle threads of some libraries spin a while before they sleep: 200 ms by OpenMP's custom. */
const SETTLE_MS = 250;

/** Runs until the time is over, at least once. */
async function runFor(contender: Contender, seconds: number): Promise<Run> {
  const sum: Run = { seconds: 0, tokens: 0 };
  do {
    const run = await contender.run();
    sum.seconds += run.seconds;
    sum.tokens += run.tokens;
    if (run.microseconds) sum.microseconds = [...(sum.microseconds ?? []), ...run.microseconds];
  } while (sum.seconds < seconds);
  return sum;
}

/**
 * All contenders of one case, round by round one after the other: whatever else the machine does meets all of them. The
 * first one must be able to do the case; what another can not do is said.
 */
export async function runCase(
  one: Case,
  entries: Entry[],
  floor: Floor | null,
  { rounds, seconds }: Effort,
  signal: AbortSignal,
): Promise<Result> {
  const contenders: Contender[] = [];
  const skipped: Result['skipped'] = [];
  try {
    const otherWork = new Set<Contender>();
    for (const entry of entries) {
      signal.throwIfAborted();
      if (entry.only !== undefined && entry.only !== one.work) continue;
      try {
        const contender = await entry.enter(one, signal);
        contenders.push(contender);
        if (entry.otherWork) otherWork.add(contender);
      } catch (error) {
        if (!(error instanceof Skipped)) throw error;
        skipped.push({ name: entry.name, why: error.message });
      }
    }
    const runs: Run[][] = contenders.map(() => []);
    for (let round = 0; round < rounds; round++) {
      for (const [i, contender] of contenders.entries()) {
        signal.throwIfAborted();
        if (contenders.length > 1) await setTimeout(SETTLE_MS);
        runs[i].push(await runFor(contender, seconds));
      }
    }
    const times = runs.map((all) => all.map((run) => (1e6 * run.seconds) / run.tokens));
    const measured = contenders.map((contender, i): Measured => {
      const microsecondsPerToken = spread(times[i]);
      const same = !otherWork.has(contender);
      const each = runs[i].flatMap((run) => run.microseconds ?? []);
      return {
        name: contender.name,
        runs: rounds,
        microsecondsPerToken,
        tokensPerSecond: 1e6 / microsecondsPerToken.median,
        gflops: same ? flopsPerSegment(one) / one.segment / microsecondsPerToken.median / 1e3 : null,
        ofFloor: floor && same ? floor.microsecondsPerToken / microsecondsPerToken.median : null,
        firstIsFaster: i === 0 ? null : spread(times[i].map((time, round) => time / times[0][round])),
        ...(each.length > 0 && { token: { median: median(each), p90: quantile(each, 0.9) } }),
        ...(contender.about && { about: contender.about }),
      };
    });
    return { ...one, floor, contenders: measured, skipped };
  } finally {
    for (const contender of contenders) contender.close();
  }
}

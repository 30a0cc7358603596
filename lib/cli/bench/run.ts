import { setTimeout } from 'node:timers/promises';
import { median, quantile } from '../format';
import { type Case, type Contender, type Entry, type Run, Skipped } from './contender';
import type { Floor } from './floor';
import { bytesPerToken, flopsPerToken } from './work';

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
  /** 10^9 bytes a second. */
  gbps: number | null;
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
  /** Told what it is about to do. */
  note?: (text: string) => void;
}

/** The idle threads of some libraries spin a while before they sleep: 200 ms by OpenMP's custom. */
const SETTLE_MS = 250;

/** Runs until the time is over, at least once. */
async function runFor(contender: Contender, seconds: number): Promise<Run> {
  const sum: Run = { seconds: 0, tokens: 0 };
  let elapsed = 0;
  do {
    const run = await contender.run();
    elapsed += run.elapsed ?? run.seconds;
    sum.seconds += run.seconds;
    sum.tokens += run.tokens;
    if (run.microseconds) sum.microseconds = [...(sum.microseconds ?? []), ...run.microseconds];
  } while (elapsed < seconds);
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
  { rounds, seconds, note = () => {} }: Effort,
  signal: AbortSignal,
): Promise<Result> {
  let entered: { contender: Contender; otherWork: boolean; runs: Run[] }[] = [];
  const skipped: Result['skipped'] = [];
  const skip = (name: string, error: unknown) => {
    if (!(error instanceof Skipped)) throw error;
    skipped.push({ name, why: error.message });
  };
  try {
    for (const { name, enter, only, otherWork = false } of entries) {
      signal.throwIfAborted();
      if (only?.includes(one.work) === false) continue;
      note(`${name}: making ready`);
      try {
        entered.push({ contender: await enter(one, signal), otherWork, runs: [] });
      } catch (error) {
        skip(name, error);
      }
    }
    for (let round = 0; round < rounds; round++) {
      for (const { contender, runs } of [...entered]) {
        signal.throwIfAborted();
        note(`${contender.name}: round ${round + 1} of ${rounds}`);
        if (entered.length > 1) await setTimeout(SETTLE_MS);
        try {
          runs.push(await runFor(contender, seconds));
        } catch (error) {
          skip(contender.name, error);
          contender.close();
          entered = entered.filter((other) => other.contender !== contender);
        }
      }
    }
    const timesOf = (runs: Run[]) => runs.map((run) => (1e6 * run.seconds) / run.tokens);
    const first = timesOf(entered[0].runs);
    const contenders = entered.map(({ contender, otherWork, runs }, i): Measured => {
      const times = timesOf(runs);
      const microsecondsPerToken = spread(times);
      const { median: time } = microsecondsPerToken;
      const each = runs.flatMap((run) => run.microseconds ?? []);
      return {
        name: contender.name,
        runs: rounds,
        microsecondsPerToken,
        tokensPerSecond: 1e6 / time,
        gflops: otherWork ? null : flopsPerToken(one) / time / 1e3,
        gbps: otherWork ? null : bytesPerToken(one) / time / 1e3,
        ofFloor: otherWork || !floor ? null : floor.microsecondsPerToken / time,
        firstIsFaster: i === 0 ? null : spread(times.map((other, round) => other / first[round])),
        ...(each.length > 0 && { token: { median: median(each), p90: quantile(each, 0.9) } }),
        ...(contender.about && { about: contender.about }),
      };
    });
    return { ...one, floor, contenders, skipped };
  } finally {
    note('');
    for (const { contender } of entered) contender.close();
  }
}

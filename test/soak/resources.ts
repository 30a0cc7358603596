import { readdirSync, readFileSync } from 'node:fs';

/** What a process holds, in a quiet moment. */
export interface Sample {
  rss: number;
  files: number;
  threads: number;
  handles: number;
}

export function sample(): Sample {
  return {
    rss: process.memoryUsage.rss(),
    files: readdirSync('/proc/self/fd').length,
    threads: Number(/^Threads:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]),
    handles: process.getActiveResourcesInfo().length,
  };
}

/** Fragments of the heap and pages of V8 come and go. */
const NOISE = 48 * 2 ** 20;

/** The engine's threads come with the first device that asks for so many: crowd.ts asks for 1 to 4, now or later. */
const LATE_THREADS = 3;

/** Throws when the process grew: the first third is warm-up, the last third must be as the middle one. */
export function expectFlat(samples: readonly Sample[], sanitized: boolean): Record<string, number> {
  const third = Math.floor(samples.length / 3);
  const middle = samples.slice(third, 2 * third);
  const last = samples.slice(2 * third);
  const growth: Record<string, number> = {};
  for (const key of ['rss', 'files', 'threads', 'handles'] as const) {
    growth[key] = median(last.map((each) => each[key])) - median(middle.map((each) => each[key]));
    const bytes = sanitized ? Number.POSITIVE_INFINITY : NOISE;
    const allowed = key === 'rss' ? bytes : key === 'threads' ? LATE_THREADS : 0;
    if (growth[key] > allowed) throw new Error(`${key} grew: ${samples.map((each) => each[key]).join(' ')}`);
  }
  return growth;
}

function median(numbers: number[]): number {
  return numbers.sort((a, b) => a - b)[numbers.length >> 1];
}

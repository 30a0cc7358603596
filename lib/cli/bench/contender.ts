import type { Shape } from './work';

/**
 * prefill: whole segments in one call; decode: one token at a time through a whole segment, its absorption included;
 * state: the absorption alone; batch: a segment of each of many streams in one call; step: decode of many streams.
 */
export const WORKS = ['prefill', 'decode', 'state', 'batch', 'step'] as const;
export type Work = (typeof WORKS)[number];

export interface Case extends Shape {
  work: Work;
  threads: number;
  /** How many there are in batch and step; everything else is of one. */
  streams?: number;
}

export interface Run {
  seconds: number;
  /** Of all streams together. */
  tokens: number;
  /** How long it really took, where `seconds` is only a part of it. */
  elapsed?: number;
  /** Of each token alone, where it was measured. */
  microseconds?: number[];
}

/** One implementation, ready to do one case again and again. */
export interface Contender {
  name: string;
  run(): Promise<Run> | Run;
  close(): void;
  /** What was found out before it was let in: the relative error, and the bytes it holds for a stream. */
  about?: { error?: number; bytes?: number; splitError?: number };
}

/** What can not do a case says why; it is shown as skipped. */
export class Skipped extends Error {}

/** Makes ready: allocates, compiles, warms up, and refuses with an error when its result is wrong. */
export interface Entry {
  name: string;
  /** Left out of other work without a word. */
  only?: readonly Work[];
  /** Its operations are not those of the case: it has a time, but no GFLOP/s and no floor. */
  otherWork?: boolean;
  enter(one: Case, signal: AbortSignal): Promise<Contender>;
}

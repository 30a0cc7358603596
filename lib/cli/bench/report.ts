import { bytes, count, table } from '../format';
import type { Machine } from '../machine';
import type { Binding } from './binding';
import type { Change } from './compare';
import type { Limits } from './floor';
import type { Measured, Result } from './run';
import { nameOf } from './work';

export interface Report extends Machine {
  command: string;
  limits: Limits | null;
  binding: Binding;
  results: Result[];
  comparison?: Change[];
}

const fixed = (value: number | null | undefined, digits = 1) => (value == null ? '-' : value.toFixed(digits));

function row(result: Result, one: Measured, first: boolean): string[] {
  const { microsecondsPerToken: time, firstIsFaster: ratio, about } = one;
  return [
    first ? nameOf(result) : '',
    first ? String(result.segment) : '',
    first ? String(result.headDim) : '',
    one.name,
    count(one.tokensPerSecond),
    fixed(time.median, 2),
    `${fixed(time.min, 2)}..${fixed(time.max, 2)}`,
    fixed(one.gflops),
    fixed(one.gbps),
    one.ofFloor === null ? '-' : `${(100 * one.ofFloor).toFixed(0)} %`,
    ratio ? `${fixed(ratio.median, 2)}x` : '',
    about?.error === undefined ? '' : about.error.toExponential(1),
    about?.bytes ? bytes(about.bytes) : '',
  ];
}

export const HEADING = [
  ...['work', 'segment', 'head', 'who', 'tokens/s', 'us/token', 'range', 'GFLOP/s', 'GB/s', 'of floor'],
  ...['ratio', 'error', 'bytes'],
];

export const cells = ({ results }: Report): string[][] =>
  results.flatMap((result) => result.contenders.map((one, i) => row(result, one, i === 0)));

export function placeOf({ cpu, device }: Machine): string {
  const simd = 'simd' in device && device.simd ? `, ${device.simd}` : '';
  return `${device.backend === 'cpu' ? cpu : device.name}${simd}`;
}

/** What was measured, where, and what that place can do. */
export function head(report: Report): string[] {
  const { node, limits, results } = report;
  const [{ heads, kvHeads, dtype, rule, threads }] = results;
  const giga = (rate: number) => (rate / 1e9).toFixed(0);
  const all = (measured: Limits['reads']) =>
    measured.map((one) => `${bytes(one.bytes)}: ${giga(one.bandwidth)} GB/s`).join(', ');
  return [
    `${placeOf(report)}, ${threads} threads, Node ${node}`,
    `${heads} heads (${kvHeads} for keys and values), ${dtype}, rule ${rule}`,
    ...(limits
      ? [
          `limits measured now: ${giga(limits.flops)} GFLOP/s of float32${limits.tileFlops ? `, ${giga(limits.tileFlops)} of bfloat16 on tiles` : ''}`,
          `reading ${all(limits.reads)}`,
          `triad   ${all(limits.triads)}`,
        ]
      : []),
  ];
}

/** What a terminal shows. */
export function inWords(report: Report): string {
  const { binding, results, comparison } = report;
  const skips = new Map(results.flatMap(({ skipped }) => skipped.map(({ name, why }) => [name, why])));
  return [
    ...head(report),
    '',
    table([HEADING, ...cells(report)], '<>><>>>>>>>>>'),
    '',
    ...[...skips].map(([name, why]) => `${name}: skipped, ${why}`),
    `a call beside its work: attendSync ${fixed(binding.sync)} us, attend ${fixed(binding.async)} us, a step of 64 streams ${fixed(binding.batchOf64)} us`,
    '',
    ...(comparison
      ? [
          'compared with before (time now / then, and what may be chance):',
          ...comparison.map(
            ({ what, ratio, noise, verdict }) =>
              `  ${what}: ${fixed(ratio, 2)} ± ${fixed(noise, 2)}, ${verdict}`,
          ),
          '',
        ]
      : []),
    ...EXPLANATION,
  ].join('\n');
}

const EXPLANATION = [
  'prefill: whole segments through attend, copies included. decode: one token at a time through attendSync, the mean over',
  'whole segments, absorptions included. state: absorbing a segment alone. batch: a segment of each of so many streams through',
  'attendBatch. step: one token of each through a prepared batch. Medians of interleaved rounds (range: all rounds). GB/s: of',
  'what must come from memory or go there. of floor: the time that the operations or the bytes alone take, over the time taken.',
  'ratio: how many times as fast infini-stream is, median of the rounds. error: the largest of sampled tokens, and of what',
  'two heads made of a segment, from float64.',
];

import { writeFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import { type DType, openDevice, type Rule } from '../index';
import type { Effort } from './bench/run';
import { alongStreams, alongThreads, alongTokens, markPlaces, type ScalingReport } from './bench/scaling';
import { scalingHtml, scalingInWords } from './bench/scaling-report';
import type { Shape } from './bench/work';
import { interruptible } from './interrupt';
import { commandLine, machineOf } from './machine';
import { lengths, positive, whole, wholes } from './options';
import { note, Progress } from './progress';

interface ScalingOptions extends Shape {
  lengths: number[];
  threads?: number[];
  streams: number[];
  rounds: number;
  seconds: number;
  html?: string;
  json?: boolean;
}

const MILLION = 2 ** 20;

/** `infini-stream bench scaling` */
export function scalingCommand(): Command {
  return new Command('scaling')
    .description('measure time per token along a stream, and throughput along threads and streams (CPU)')
    .addOption(
      new Option('--lengths <list>', 'tokens that a stream has read before, also as 32K or 1M')
        .argParser(lengths(1, 1000 * MILLION))
        .default([2 ** 10, 10 * 2 ** 10, 100 * 2 ** 10, MILLION], '1K,10K,100K,1M'),
    )
    .addOption(new Option('--threads <list>', 'of a device (default: 1, 2, 4 .. all)').argParser(wholes(1)))
    .addOption(
      new Option('--streams <list>', 'that step together')
        .argParser(wholes(1))
        .default([1, 4, 16, 64, 256], '1,4,16,64,256'),
    )
    .option('--heads <n>', 'query heads', whole(1), 8)
    .option('--kv-heads <n>', 'key and value heads (default: heads)', whole(1))
    .option('--head-dim <n>', 'components of keys and values', whole(1), 64)
    .option('--segment <n>', 'segment length', whole(1), 512)
    .addOption(
      new Option('--dtype <type>', 'of q, k, v and the output')
        .choices(['float32', 'bfloat16', 'float16'])
        .default('float32'),
    )
    .addOption(new Option('--rule <rule>', 'of the memory').choices(['delta', 'linear']).default('delta'))
    .option('--rounds <n>', 'of all points of a curve, one after the other', whole(1), 5)
    .option('--seconds <n>', 'of repeated runs for each point of a round', positive, 0.3)
    .option('--html <file>', 'write a page with curves (needs vega@5 and vega-lite@5)')
    .option('--json', 'print JSON')
    .action(scaling);
}

/** 1, 2, 4 and so on, and all. */
const upTo = (most: number): number[] => [
  ...Array.from({ length: Math.ceil(Math.log2(most)) }, (_, i) => 2 ** i),
  most,
];

async function scaling(options: ScalingOptions): Promise<void> {
  const { heads, kvHeads = heads, headDim, segment, rounds, seconds, ...rest } = options;
  const shape = { heads, kvHeads, headDim, segment, dtype: rest.dtype as DType, rule: rest.rule as Rule };
  const effort: Effort = { rounds, seconds, note };
  await interruptible(async (signal) => {
    using device = openDevice('cpu');
    const { info } = device;
    const threads = info.threads ?? 1;
    const base = { ...shape, threads };
    const progress = new Progress('reading', rest.lengths.at(-1), 'tokens');
    const places = await markPlaces(device, shape, rest.lengths, signal, (done) =>
      progress.update(done),
    ).finally(() => progress.stop());
    const say = (text: string) => console.error(`  ${text}`);
    say(`1 of 3: along ${places.length} lengths of a stream`);
    const curves = await alongTokens(places, base, effort, signal);
    say('2 of 3: along threads');
    curves.push(...(await alongThreads(rest.threads ?? upTo(threads), base, effort, signal)));
    say('3 of 3: along streams');
    curves.push(...(await alongStreams(device, rest.streams, base, effort, signal)));
    const report: ScalingReport = {
      ...machineOf(info),
      command: commandLine(),
      ...shape,
      threads,
      curves,
    };
    if (rest.html !== undefined) writeFileSync(rest.html, await scalingHtml(report));
    console.log(rest.json ? JSON.stringify(report, null, 2) : scalingInWords(report));
  });
}

import { readFileSync, writeFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import { type Device, type DType, openDevice, type Rule } from '../index';
import { measureBinding } from './bench/binding';
import { compare } from './bench/compare';
import { type Case, type Entry, WORKS, type Work } from './bench/contender';
import { floorOf, measureLimits } from './bench/floor';
import { htmlReport } from './bench/html';
import { peersOf } from './bench/peers';
import { inWords, placeOf, type Report } from './bench/report';
import { type Effort, type Result, runCase } from './bench/run';
import { enterOwn } from './bench/stream';
import { nameOf } from './bench/work';
import { interruptible } from './interrupt';
import { commandLine, machineOf } from './machine';
import { choices, positive, whole, wholes } from './options';
import { note } from './progress';
import { scalingCommand } from './scaling';

interface BenchOptions {
  works: Work[];
  heads: number;
  kvHeads?: number;
  headDim: number[];
  segment: number[];
  streams: number;
  dtype: DType;
  rule: Rule;
  rounds: number;
  seconds: number;
  device: string;
  threads?: number;
  peers?: string[];
  compare?: string;
  html?: string;
  json?: boolean;
}

export function benchCommand(): Command {
  return new Command('bench')
    .enablePositionalOptions()
    .addCommand(scalingCommand())
    .description(
      'measure prefill, decode, absorption, many streams, and bytes held, for each segment length with each head size',
    )
    .addOption(
      new Option('--works <list>', 'what to measure')
        .argParser(choices(WORKS))
        .default([...WORKS], WORKS.join(',')),
    )
    .option('--heads <n>', 'query heads', whole(1), 8)
    .option('--kv-heads <n>', 'key and value heads (default: heads)', whole(1))
    .addOption(
      new Option('--head-dim <list>', 'components of keys and values')
        .argParser(wholes(1))
        .default([64, 128], '64,128'),
    )
    .addOption(
      new Option('--segment <list>', 'segment lengths').argParser(wholes(1)).default([512, 2048], '512,2048'),
    )
    .option('--streams <n>', 'of batch and step, with the first segment length', whole(1), 64)
    .addOption(
      new Option('--dtype <type>', 'of q, k, v and the output')
        .choices(['float32', 'bfloat16', 'float16'])
        .default('float32'),
    )
    .addOption(new Option('--rule <rule>', 'of the memory').choices(['delta', 'linear']).default('delta'))
    .option('--rounds <n>', 'of all contenders, one after the other', whole(1), 7)
    .option('--seconds <n>', 'of repeated runs for each contender of a round', positive, 0.3)
    .option('--device <id>', 'auto, cpu, cuda or cuda:<n>', 'auto')
    .option('--threads <n>', 'of the CPU device and of peers (default: all cores)', whole(1))
    .addOption(
      new Option(
        '--peers <list>',
        'measure what these programs offer beside it (bench/peers/cpu_peers.py, bench/peers/onnx_peer.cjs)',
      ).argParser((text) => text.split(',')),
    )
    .option('--compare <file>', 'say what changed since this JSON result')
    .option('--html <file>', 'write a page with a roofline and curves (needs vega@5 and vega-lite@5)')
    .option('--json', 'print JSON')
    .action(bench);
}

async function entriesOf(device: Device, peers: string[]): Promise<Entry[]> {
  const own: Entry = { name: 'infini-stream', enter: (one, signal) => enterOwn(device, one, signal) };
  if (device.info.backend !== 'cpu') return [own];
  const offered = (await Promise.all(peers.map(peersOf))).flat();
  return [own, ...offered.sort((a, b) => Number(a.otherWork ?? false) - Number(b.otherWork ?? false))];
}

/** Many streams are measured with the first segment length only: they take so much longer. */
function casesOf(
  { works, heads, kvHeads = heads, headDim, segment, ...rest }: BenchOptions,
  threads: number,
) {
  const { dtype, rule, streams } = rest;
  return works.flatMap((work) => {
    const many = work === 'batch' || work === 'step';
    return (many ? segment.slice(0, 1) : segment).flatMap((segment) =>
      headDim.map((headDim): Case => {
        const shape = { heads, kvHeads, headDim, segment, dtype, rule };
        return { work, ...shape, threads, ...(many && { streams }) };
      }),
    );
  });
}

/** An older result, checked before anything is measured. */
function readReport(file: string): Report {
  const report: Report = JSON.parse(readFileSync(file, 'utf8'));
  if (!Array.isArray(report.results) || !report.results.every(({ contenders }) => contenders?.length > 0))
    throw new Error(`${file} is no result of this version's \`bench --json\``);
  return report;
}

async function bench(options: BenchOptions): Promise<void> {
  const { rounds, seconds } = options;
  const before = options.compare === undefined ? undefined : readReport(options.compare);
  await interruptible(async (signal) => {
    using device = openDevice(
      options.device as Parameters<typeof openDevice>[0],
      options.threads === undefined ? undefined : { threads: options.threads },
    );
    const { info } = device;
    const threads = 'threads' in info && info.threads !== undefined ? info.threads : 1;
    const cases = casesOf(options, threads);
    const entries = await entriesOf(device, options.peers ?? []);
    const limits = info.backend === 'cpu' ? measureLimits(threads) : null;
    const effort: Effort = { rounds, seconds, note };
    const results: Result[] = [];
    for (const [i, one] of cases.entries()) {
      console.error(
        `  ${i + 1} of ${cases.length}: ${nameOf(one)}, segment ${one.segment}, head size ${one.headDim}`,
      );
      results.push(await runCase(one, entries, limits && floorOf(one, limits), effort, signal));
    }
    const binding = await measureBinding(device, signal);
    const report: Report = { ...machineOf(info), command: commandLine(), limits, binding, results };
    if (before) {
      report.comparison = compare(before.results, results);
      if (placeOf(before) !== placeOf(report))
        console.error(`  compared with another machine: ${placeOf(before)}, not ${placeOf(report)}`);
    }
    if (options.html !== undefined) writeFileSync(options.html, await htmlReport(report));
    console.log(options.json ? JSON.stringify(report, null, 2) : inWords(report));
  });
}

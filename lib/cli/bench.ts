import { Command, Option } from 'commander';
import { type DType, openDevice, type Rule } from '../index';
import { type Measured, measure, type Spread } from './bench/measure';
import type { Shape } from './bench/work';
import { bytes, count, table } from './format';
import { interruptible } from './interrupt';
import { machineOf } from './machine';
import { positive, whole, wholes } from './options';

interface BenchOptions {
  heads: number;
  kvHeads?: number;
  headDim: number[];
  segment: number[];
  dtype: DType;
  rule: Rule;
  seconds: number;
  device: string;
  threads?: number;
  json?: boolean;
}

export function benchCommand(): Command {
  return new Command('bench')
    .description('measure prefill, decode and bytes held, for each segment length with each head size')
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
    .addOption(
      new Option('--dtype <type>', 'of q, k, v and the output')
        .choices(['float32', 'bfloat16', 'float16'])
        .default('float32'),
    )
    .addOption(new Option('--rule <rule>', 'of the memory').choices(['delta', 'linear']).default('delta'))
    .option('--seconds <n>', 'of repeated prefill for each shape', positive, 3)
    .option('--device <id>', 'auto, cpu, cuda or cuda:<n>', 'auto')
    .option('--threads <n>', 'of the CPU device (default: all cores)', whole(1))
    .option('--json', 'print JSON')
    .action(bench);
}

async function bench(options: BenchOptions): Promise<void> {
  const { heads, kvHeads = heads, dtype, rule, seconds, threads } = options;
  const shapes = options.segment.flatMap((segment) =>
    options.headDim.map((headDim): Shape => ({ heads, kvHeads, headDim, segment, dtype, rule })),
  );
  await interruptible(async (signal) => {
    using device = openDevice(
      options.device as Parameters<typeof openDevice>[0],
      threads === undefined ? undefined : { threads },
    );
    const results: Measured[] = [];
    for (const [i, shape] of shapes.entries()) {
      console.error(`  ${i + 1} of ${shapes.length}: segment ${shape.segment}, head size ${shape.headDim}`);
      results.push(await measure(device, shape, seconds, signal));
    }
    const { info } = device;
    const head = {
      ...machineOf(info),
      threads: 'threads' in info ? info.threads : null,
      simd: 'simd' in info ? info.simd : null,
    };
    console.log(options.json ? JSON.stringify({ ...head, results }, null, 2) : report(head, results));
  });
}

type Head = { node: string; cpu: string; threads: unknown; simd: unknown };

function report({ node, cpu, threads, simd }: Head, results: Measured[]): string {
  const [{ heads, kvHeads, dtype, rule }] = results;
  const range = ({ min, max }: Spread) => `${min.toFixed(0)}..${max.toFixed(0)}`;
  const rows = results.map((result) => [
    String(result.segment),
    String(result.headDim),
    count(result.tokensPerSecond.median),
    result.gflops.median.toFixed(1),
    range(result.gflops),
    result.decode.median.toFixed(1),
    result.decode.p90.toFixed(1),
    result.decode.mean.toFixed(1),
    bytes(result.streamBytes),
    result.splitError === 0 ? '0' : result.splitError.toExponential(1),
  ]);
  const heading = [
    'segment',
    'head',
    'tokens/s',
    'GFLOP/s',
    'range',
    'decode',
    'p90',
    'mean',
    'bytes',
    'split',
  ];
  return [
    `${cpu}, ${threads ?? '-'} threads, ${simd ?? '-'}, Node ${node}`,
    `${heads} heads (${kvHeads} for keys and values), ${dtype}, rule ${rule}`,
    '',
    table([heading, ...rows], '>>>>>>>>>>'),
    '',
    'tokens/s, GFLOP/s: prefill, copies included, median of the runs (range: slowest, fastest).',
    'decode: microseconds for a token through attendSync; the mean is over whole segments.',
    'split: relative difference between a call and the same tokens in pieces (0: the bits agree).',
  ].join('\n');
}

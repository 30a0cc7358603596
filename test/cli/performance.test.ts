import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Measured } from '../../lib/cli/bench/run';

const root = path.join(__dirname, '../..');
const { documents, replaceSection } = require('../../scripts/performance.cjs');
const { newest, readResults } = require('../../scripts/performance/results.cjs');
const { listOfResults, performance } = require('../../scripts/performance/tables.cjs');

test('README.md and bench/README.md say what bench/results holds (npm run performance)', () => {
  const written = documents();
  expect(Object.keys(written)).toEqual(['README.md', 'bench/README.md']);
  for (const [file, text] of Object.entries(written))
    expect(readFileSync(path.join(root, file), 'utf8')).toBe(text);
});

const measured = (name: string, median: number, more: Partial<Measured> = {}): Measured => ({
  name,
  runs: 3,
  microsecondsPerToken: { median, min: median - 1, max: median + 1 },
  tokensPerSecond: 1e6 / median,
  gflops: 12.345,
  gbps: 3,
  ofFloor: 0.5,
  firstIsFaster: name === 'infini-stream' ? null : { median: median / 10, min: 1, max: 2 },
  ...more,
});

const machine = {
  date: '2027-02-03T04:05:06.000Z',
  version: '1',
  node: 'v20',
  cpu: 'Fast CPU',
  device: { id: 'cpu', backend: 'cpu', name: 'Fast CPU', threads: 4, simd: 'avx512' },
  command: 'npx infini-stream bench --json',
};
const shape = {
  heads: 8,
  kvHeads: 8,
  headDim: 64,
  segment: 2048,
  dtype: 'float32',
  rule: 'delta',
  threads: 4,
};
const cache = (name: string, microseconds: number, bytes: number) =>
  measured(name, microseconds, { gflops: null, gbps: null, ofFloor: null, about: { bytes } });
const report = {
  ...machine,
  results: [
    {
      ...shape,
      work: 'decode',
      contenders: [
        measured('infini-stream', 10, { about: { bytes: 2e6 } }),
        measured('numpy', 25),
        cache('torch, 4K cached', 8, 16e6),
        cache('torch, 16K cached', 33, 64e6),
      ],
      skipped: [],
    },
    { ...shape, work: 'step', streams: 64, contenders: [measured('infini-stream', 5)], skipped: [] },
  ],
};
const scaling = {
  ...machine,
  ...shape,
  curves: [
    {
      along: 'tokens',
      work: 'decode',
      points: [
        { at: 1024, ...measured('1024', 10) },
        { at: 1048576, ...measured('1048576', 10.2) },
      ],
    },
    { along: 'streams', work: 'step', points: [{ at: 256, ...measured('256', 4) }] },
  ],
};

describe('from results', () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const files = {
    'cpu-scaling-2027-02-03.json': scaling,
    'cpu-float32-2027-02-03.json': report,
    'cpu-float32-2026-12-31.json': { ...report, cpu: 'Old CPU' },
    'cpu-float32-avx512-2026-01-01.json': report,
    'cpu-bfloat16-2026-12-31.json': { ...report, results: report.results.slice(1) },
    'passkey-delta-english.json': {
      ...machine,
      command: undefined,
      model: { rule: 'delta' },
      settings: { lengths: [32768, 1048576], haystack: 'english', seed: 7 },
    },
    'kernels-gpu-2027-02-03.json': { date: machine.date },
  };
  for (const [file, result] of Object.entries(files))
    writeFileSync(path.join(folder, file), JSON.stringify(result));
  const results = readResults(folder);

  test('the newest of each kind count, types first', () => {
    expect(newest(results).map(({ file }: { file: string }) => file)).toEqual([
      'cpu-float32-2027-02-03.json',
      'cpu-float32-avx512-2026-01-01.json',
      'cpu-bfloat16-2026-12-31.json',
      'cpu-scaling-2027-02-03.json',
    ]);
  });

  const text: string = performance(newest(results));

  test('every case has its row', () => {
    expect(text).toContain(
      '4 threads of Fast CPU (AVX-512), Node v20, 2027-02-03, `npx infini-stream bench --json`',
    );
    expect(text).toContain('(bench/results/cpu-float32-2027-02-03.json)');
    expect(text).not.toContain('Old CPU');
    expect(text).toContain(
      '| decode | 2,048 × 64 | 100,000 | 10.0 (9.00–11.0) | 12.3 | 3.00 | 50 % | 2.5× |',
    );
    expect(text).toContain(
      '| step of 64 | 2,048 × 64 | 200,000 | 5.00 (4.00–6.00) | 12.3 | 3.00 | 50 % |  |',
    );
    expect(text.match(/of floor \| numpy \|$/gm)).toHaveLength(2);
  });

  test('where a fixed memory is faster, and smaller', () => {
    expect(text.match(/faster from; smaller from/g)).toHaveLength(1);
    expect(text).toContain(
      '| 2,048 × 64 | 10 µs, 2.00 MB | 8 µs, 16.0 MB | 33 µs, 64.0 MB | between 4K and 16K; 512 |',
    );
    const decoding = (times: [number, number]) => {
      const [own, other, ...caches] = report.results[0].contenders;
      const slower = caches.map((one, i) => cache(one.name, times[i], one.about?.bytes ?? 0));
      const contenders = [own, other, ...slower];
      const results = [{ ...report.results[0], contenders }];
      return performance([{ file: 'a', day: 'b', what: 'float32', report: { ...report, results } }]);
    };
    expect(decoding([11, 12])).toContain('| below 4K; 512 |');
    expect(decoding([8, 9])).toContain('| above 16K; 512 |');
  });

  test('a curve is a table', () => {
    expect(text).toContain('| tokens before it | 1,024 | 1,048,576 |\n| --- | ---: | ---: |\n');
    expect(text).toContain('| decode, time per token | 10.0 µs | 10.2 µs |');
    expect(text).toContain('| streams | 256 |\n| --- | ---: |\n| step, tokens/s | 250,000 |');
  });

  test('the list says where every figure comes from', () => {
    const list: string = listOfResults(results);
    expect(list.split('\n')).toHaveLength(2 + Object.keys(files).length - 1);
    expect(list).toContain(
      '| [passkey-delta-english.json](results/passkey-delta-english.json) | `npx infini-stream passkey --rule delta ' +
        '--haystack english --lengths 32K,1M --seed 7 --json` | 4 threads of Fast CPU (AVX-512) | 2027-02-03 |',
    );
    expect(list).not.toContain('kernels');
  });
});

test('only what is between the marks changes', () => {
  expect(replaceSection('a\n<!-- x -->\nold\n<!-- /x -->\nb', 'x', 'new')).toBe(
    'a\n<!-- x -->\nnew\n<!-- /x -->\nb',
  );
  expect(() => replaceSection('a', 'x', 'new')).toThrow('<!-- x -->');
});

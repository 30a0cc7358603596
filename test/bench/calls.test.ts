// The programs that drive a device from JavaScript, on the CPU.

import { join } from 'node:path';
import { root, run } from '../package/run.js';

const node = (script: string, ...args: string[]) => run(process.execPath, [join(root, script), ...args]);

test('end-to-end.cjs times calls whose results agree', () => {
  const lines = node('bench/gpu/end-to-end.cjs', 'cpu', '--small').trim().split('\n');
  const calls = lines.map((line) => JSON.parse(line));
  expect(calls.map(({ what }) => what)).toEqual([
    'prefill of four segments, host arrays',
    'prefill of four segments, device tensors',
    'decode, batch.stepSync, device tensors',
    'decode, batch.step, device tensors',
    'decode, batch.stepSync, host arrays',
    'decode, attendBatch, device tensors',
    'decode, attendBatch, host buffers',
    'decode, attendBatch, host arrays',
  ]);
  for (const { what, segment, open, microseconds } of calls) {
    expect(open).toBe(what.startsWith('decode') ? segment / 2 : 0); // where kernel_bench times its kernel
    expect(microseconds).toBeGreaterThan(0);
  }
});

test('repeats.cjs finds the same bits again', () => {
  const said = node('scripts/gpu/repeats.cjs', 'cpu', '2');
  expect(said).toBe('5 configurations, each run once and repeated 2 times\n');
});

test.each(['0', 'x'])('repeats.cjs does not pass without a comparison: %s repeats', (times) => {
  expect(() => node('scripts/gpu/repeats.cjs', 'cpu', times)).toThrow(/expected a number of repeats/);
});

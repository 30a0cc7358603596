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
    'decode, attendBatch, host arrays',
  ]);
  for (const call of calls) expect(call.microseconds).toBeGreaterThan(0);
});

test('repeats.cjs finds the same bits again', () => {
  expect(node('scripts/gpu/repeats.cjs', 'cpu', '3')).toBe('5 streams, 3 times each\n');
});

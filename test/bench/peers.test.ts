// The program that times other implementations, on the CPU: times mean nothing there, the rest does.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { root, run } from '../package/run.js';

const succeeds = (...args: string[]) => spawnSync('python3', args, { stdio: 'ignore' }).status === 0;

const withPython = succeeds('--version') ? test : test.skip;
const withTorch = succeeds('-c', 'import torch') ? test : test.skip;

function peers(...args: string[]) {
  const [before, after] = args[0] === '-S' ? [['-S'], args.slice(1)] : [[], args];
  const printed = run('python3', [...before, join(root, 'bench/peers/gpu_peers.py'), ...after]);
  return printed
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}

withPython('without PyTorch (needs python3), gpu_peers.py says that there is none', () => {
  const [one, ...more] = peers('-S'); // no packages
  expect(one).toEqual({ peer: 'PyTorch', skipped: expect.stringMatching(/torch/) });
  expect(more).toEqual([]);
});

const small = ['--device', 'cpu', '--segments', '64', '--dims', '16', '--heads', '2', '--streams', '2'];
const names = ['sdpa', 'infini eager', 'infini compiled'];
const all = [...names.map((name) => `${name} (flash)`), ...names.map((name) => `${name} (cudnn)`)];

withTorch(
  'gpu_peers.py (needs PyTorch) times what gives the right results, and refuses the rest with a reason',
  () => {
    const printed = peers(...small);
    expect(printed.map(({ peer }) => peer)).toEqual([...all, 'fla linear', 'fla delta']);
    for (const one of printed.slice(0, 2)) {
      expect(one).toMatchObject({ segment: 64, dim: 16, heads: 2, streams: 2 });
      expect(one.microseconds).toBeGreaterThan(0);
      expect(one.errors.output).toBeLessThan(0.01);
      expect(one.errors.output).toBeGreaterThan(0); // bfloat16 rounds
    }
    for (const one of printed.slice(3)) {
      expect(one.skipped).toMatch(/\w/); // cuDNN and Triton's kernels need a GPU
      expect(one).not.toHaveProperty('microseconds');
    }
  },
  300_000,
);

withTorch.each([
  ['0', [/output of the first head is off/, /output of the first head is off/]],
  ['1', [undefined, /memory of the first head is off/]],
  ['2', [undefined, /normalizer of the first head is off/]],
])(
  'gpu_peers.py (needs PyTorch) gives no time of a wrong result: number %s',
  (which, reasons) => {
    const printed = peers(...small, '--spoil', which);
    for (const [i, reason] of reasons.entries()) {
      if (reason) expect(printed[i].skipped).toMatch(reason);
      expect('microseconds' in printed[i]).toBe(reason === undefined);
    }
  },
  300_000,
);

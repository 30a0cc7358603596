// The programs that work beside infini-stream in a benchmark: what they offer, and that what they compute is right.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { root } from '../package/run.js';

const python = ['python3', join(root, 'bench/peers/cpu_peers.py')];
const onnx = [process.execPath, join(root, 'bench/peers/onnx_peer.cjs')];

const succeeds = ([program, ...args]: string[]) => spawnSync(program, args, { stdio: 'ignore' }).status === 0;
const when = (there: boolean) => (there ? test : test.skip);
const withPython = when(succeeds(['python3', '--version']));
const withTorch = when(succeeds(['python3', '-c', 'import torch, numpy']));
const withOnnx = when(succeeds([process.execPath, '-e', 'require("onnxruntime-node")']));

const works = ['prefill', 'decode', 'state', 'batch', 'step'];

/** Every line's answer. */
function ask([program, ...args]: string[], ...questions: object[]) {
  const input = questions.map((question) => `${JSON.stringify(question)}\n`).join('');
  const { stdout, stderr, status } = spawnSync(program, args, { input, encoding: 'utf8', timeout: 100_000 });
  if (status !== 0) throw new Error(`${program} ended with ${status}: ${stderr}`);
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}

const small = { heads: 3, headDim: 16, segment: 24, dtype: 'float32', rule: 'delta', threads: 1 };

function expectRight(peer: string[], name: string, work: string, rule: string): void {
  const segments = work === 'decode' ? 1 : 2;
  const asked = { ...small, peer: name, work, rule, segments };
  const [ready, ...runs] = ask(peer, asked, { run: true }, { run: true });
  expect(ready).toEqual({ ready: true, error: expect.any(Number), bytes: null });
  expect(ready.error).toBeLessThan(1e-5);
  expect(ready.error).toBeGreaterThan(0);
  for (const { seconds, tokens } of runs) {
    expect(tokens).toBe(24 * segments);
    expect(seconds).toBeGreaterThan(0);
  }
  expect(runs).toHaveLength(2);
}

withPython(
  'without its packages (needs python3), cpu_peers.py says what it would offer, and what is missing',
  () => {
    const asked = { ...small, peer: 'numpy', work: 'prefill', segments: 1 };
    const [{ offers }, answer] = ask([python[0], '-S', python[1]], { offers: true }, asked);
    const names = offers.map(({ name }: { name: string }) => name);
    expect(names.slice(0, 3)).toEqual(['torch eager', 'torch.compile', 'numpy']);
    expect(offers[0]).toEqual({ name: 'torch eager', works });
    expect(offers.slice(3)).toEqual(
      ['4K', '16K', '64K'].map((length) => ({
        name: `torch, ${length} cached`,
        works: ['decode'],
        otherWork: true,
      })),
    );
    expect(answer.skipped).toMatch(/numpy/);
  },
);

withTorch.each(['torch eager', 'numpy'])(
  '%s (needs PyTorch and NumPy) agrees with float64',
  (name) => {
    for (const work of ['prefill', 'decode', 'state'])
      for (const rule of ['delta', 'linear']) expectRight(python, name, work, rule);
  },
  200_000,
);

test('onnx_peer.cjs says what it offers, and what it can not do', () => {
  const names = ['onnxruntime Attention', 'onnxruntime MatMul'];
  const asked = { ...small, peer: names[0], work: 'prefill', segments: 1 };
  const [{ offers }, answer] = ask(onnx, { offers: true }, { ...asked, dtype: 'bfloat16' });
  expect(offers).toEqual(names.map((name) => ({ name, works })));
  expect(answer.skipped).toMatch(/not written in bfloat16/);
});

withOnnx.each(['onnxruntime Attention', 'onnxruntime MatMul'])(
  '%s (needs onnxruntime-node) agrees with float64',
  (name) => {
    for (const work of ['prefill', 'decode', 'state'])
      for (const rule of ['delta', 'linear']) expectRight(onnx, name, work, rule);
  },
  200_000,
);

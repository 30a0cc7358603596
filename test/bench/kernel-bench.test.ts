// The kernel benchmark, with its kernels executed on the host: times mean nothing there, the rest does.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const { make, root } = require('../../scripts/build.cjs');

const onLinux = process.platform === 'linux' ? describe : describe.skip;
const tree = join(root, 'build-emulated');

function bench(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(join(tree, 'gpu/kernel_bench'), args, { encoding: 'utf8' });
  const lines = stdout.trim().split('\n').filter(Boolean);
  return { status, stderr, lines: lines.map((line) => JSON.parse(line)) };
}

const small = ['--segments', '40', '--dims', '16', '--heads', '2', '--streams', '3', '--seconds', '0.01'];

onLinux('kernel_bench', () => {
  const target = { tree, options: ['-DINFINI_CUDA=EMULATED'], targets: ['kernel_bench'], quiet: true };
  beforeAll(() => make(target), 600_000);

  test('says what it ran on, and gives the median of each kind', () => {
    const { status, lines } = bench(...small);
    const [device, ...cases] = lines;
    expect(device).toMatchObject({ device: expect.stringMatching(/emulation/), computeCapability: '8.0' });
    expect(device.copyGigabytes).toBeGreaterThan(0);
    expect(cases.map(({ kind }) => kind)).toEqual(['forward', 'state', 'step', 'decode']);
    for (const one of cases) {
      expect(one).toMatchObject({ segment: 40, dim: 16, heads: 2, streams: 3 });
      expect(one.open).toBe(one.kind === 'decode' ? 20 : 0);
      expect(one.microseconds).toBeGreaterThanOrEqual(one.fastest);
      expect(one.runs).toBeGreaterThanOrEqual(5);
    }
    expect(status).toBe(0);
  });

  test('gives no time of a result that is wrong', () => {
    const { status, lines } = bench(...small, '--spoil', '1');
    const cases = lines.slice(1);
    expect(cases).toHaveLength(4);
    for (const one of cases) {
      expect(one.wrong).toMatch(/^(the output|M) of head 0 of stream 0 is off by/);
      expect(one).not.toHaveProperty('microseconds');
    }
    expect(status).toBe(1);
  });

  test.each([
    [['--kinds', 'backward'], /no kind 'backward'/],
    [['--heads', '8,x'], /positive numbers but received '8,x'/],
    [['--wide', '1'], /no option --wide/],
    [['--dims'], /--dims needs a value/],
  ])('refuses %j', (args, message) => {
    const { status, stderr } = bench(...args);
    expect(status).toBe(2);
    expect(stderr).toMatch(message);
  });
});

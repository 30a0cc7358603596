// What the GPU scripts make of the output of the programs that they run.

const { kernelTests, suiteTests } = require('../../scripts/gpu/outcomes.cjs');
const { slug } = require('../../scripts/gpu/machine.cjs');
const { callTable, kernelTable, peerTable, withFloors } = require('../../bench/gpu/table.cjs');

test.each([
  ['NVIDIA H100 80GB HBM3', 'h100-80gb-hbm3'],
  ['NVIDIA GeForce RTX 4090', 'geforce-rtx-4090'],
  ['NVIDIA A100-SXM4-80GB', 'a100-sxm4-80gb'],
])('%s names files as %s', (name, expected) => {
  expect(slug(name)).toBe(expected);
});

describe('kernel_tests', () => {
  test('counts what passed and keeps the reason of each failure', () => {
    const output = '# seed 5\nok one\nnot ok two: M is off (x.cc:3)\nok three\n';
    expect(kernelTests({ output, passed: false, ending: 1 })).toEqual({
      passed: 2,
      failures: [{ name: 'two', reason: 'M is off (x.cc:3)' }],
    });
  });

  test('that die, or run nothing, have failed', () => {
    expect(kernelTests({ output: 'ok one\n', passed: false, ending: 'SIGSEGV' }).failures).toHaveLength(1);
    expect(kernelTests({ output: '# seed 5\n', passed: true, ending: 0 }).failures).toHaveLength(1);
  });
});

test("jest's report", () => {
  const test = (fullName: string, status: string, ...failureMessages: string[]) => {
    return { fullName, status, failureMessages };
  };
  const outcome = suiteTests({
    testResults: [
      {
        name: 'a.test.ts',
        status: 'failed',
        message: '',
        assertionResults: [test('a', 'passed'), test('b', 'failed', 'why'), test('c', 'pending')],
      },
      { name: 'b.test.ts', status: 'failed', message: 'does not load', assertionResults: [] },
    ],
  });
  expect(outcome).toEqual({
    passed: 1,
    pending: ['c'],
    failures: [
      { name: 'b.test.ts', reason: 'does not load' },
      { name: 'b', reason: 'why' },
    ],
  });
});

describe('the tables', () => {
  const device = { device: 'NVIDIA H100 80GB HBM3', copyGigabytes: 2900 };
  const shape = { segment: 2048, dim: 128, heads: 32, streams: 64 };
  const cases = withFloors(device, [
    { kind: 'step', ...shape, open: 0, microseconds: 6610 },
    { kind: 'decode', ...shape, open: 1024, microseconds: 500 },
    { kind: 'state', ...shape, open: 0, wrong: 'M of head 0 is off' },
  ]);

  test('give the fraction of the floor', () => {
    expect(kernelTable(cases).split('\n')[1]).toMatch(
      /^step +2048 +128 +32 +64 +6610\.0 +330\d\.\d +50% +arithmetic/,
    );
  });

  test('give no time of a wrong result', () => {
    const line = kernelTable(cases).split('\n')[3];
    expect(line).toMatch(/^state .* WRONG +M of head 0 is off$/);
  });

  test('give what a call takes above its kernel', () => {
    const calls = [
      { what: 'decode, batch.step', ...shape, microseconds: 540.25 },
      { what: 'prefill', ...shape, microseconds: 9000 },
    ];
    const [, decode, prefill] = callTable(calls, cases).split('\n');
    expect(decode).toMatch(/540\.3 +40\.3$/);
    expect(prefill).toMatch(/9000\.0$/);
  });

  test('compare peers with our step, and say which were skipped', () => {
    const peers = [
      { peer: 'sdpa (flash)', ...shape, microseconds: 3305 },
      { peer: 'PyTorch', skipped: "No module named 'torch'" },
    ];
    const [, sdpa, torch] = peerTable(peers, cases).split('\n');
    expect(sdpa).toMatch(/3305\.0 +0\.50x$/);
    expect(torch).toMatch(/^PyTorch +skipped +No module named 'torch'$/);
  });
});

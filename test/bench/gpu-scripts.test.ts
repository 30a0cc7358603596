// What the GPU scripts make of their arguments, and of the output of the programs that they run.

const { shapesAmong, takeOnly } = require('../../scripts/gpu/arguments.cjs');
const { kernelTests, suiteTests } = require('../../scripts/gpu/outcomes.cjs');
const { slug } = require('../../scripts/gpu/machine.cjs');
const { ratesOf } = require('../../bench/gpu/floors.cjs');
const { callTable, kernelTable, peerTable, withFloors } = require('../../bench/gpu/table.cjs');

test.each([
  ['NVIDIA H100 80GB HBM3', 'h100-80gb-hbm3'],
  ['NVIDIA GeForce RTX 4090', 'geforce-rtx-4090'],
  ['NVIDIA A100-SXM4-80GB', 'a100-sxm4-80gb'],
])('%s names files as %s', (name, expected) => {
  expect(slug(name)).toBe(expected);
});

describe('--only', () => {
  const names = ['golden', 'kernels', 'suite'];

  test.each([
    [[], { only: names, rest: [] }],
    [['--only', 'suite,golden'], { only: ['golden', 'suite'], rest: [] }],
    [['--only', 'kernels', '--dims', '64'], { only: ['kernels'], rest: ['--dims', '64'] }],
    [['--dims', '64'], { only: names, rest: ['--dims', '64'] }],
  ])('%j', (args, expected) => {
    expect(takeOnly(args, names)).toEqual(expected);
  });

  test.each([[['--only']], [['--only', '']], [['--only', 'suite,kernel']]])('refuses %j', (args) => {
    expect(() => takeOnly(args, names)).toThrow(/there is no '(kernel)?': --only takes golden,kernels,suite/);
  });
});

test('peers are given the shapes that the kernels are given', () => {
  const args = ['--kinds', 'step', '--dims', '64', '--seconds', '1', '--streams', '1,8'];
  expect(shapesAmong(args)).toEqual(['--dims', '64', '--streams', '1,8']);
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

  test('that die after a failure have two', () => {
    const output = 'ok one\nnot ok two: M is off\n';
    const { failures } = kernelTests({ output, passed: false, ending: 'out of time' });
    expect(failures.map(({ name }: { name: string }) => name)).toEqual(['two', 'kernel_tests']);
    expect(failures[1].reason).toMatch(/^out of time: ok one/);
  });
});

test("jest's report", () => {
  const test = (fullName: string, status: string, ...failureMessages: string[]) => {
    return { fullName, status, failureMessages };
  };
  const testResults = [
    {
      name: 'a.test.ts',
      status: 'failed',
      message: '',
      assertionResults: [test('a', 'passed'), test('b', 'failed', 'why'), test('c', 'pending')],
    },
    { name: 'b.test.ts', status: 'failed', message: 'does not load', assertionResults: [] },
  ];
  const outcome = suiteTests({ testResults }, { passed: false, ending: 1, output: '' });
  expect(outcome).toEqual({
    passed: 1,
    pending: ['c'],
    failures: [
      { name: 'b.test.ts', reason: 'does not load' },
      { name: 'b', reason: 'why' },
    ],
  });
});

test.each([
  [{ passed: true, ending: 0, output: '' }, 'it ran no test'],
  [{ passed: false, ending: 1, output: 'No tests found' }, 'ended with 1: No tests found'],
])('jest without a test has failed', (result, reason) => {
  expect(suiteTests({ testResults: [] }, result).failures).toEqual([{ name: 'jest', reason }]);
});

describe('the tables', () => {
  const rates = ratesOf('NVIDIA H100 80GB HBM3', 2900);
  const shape = { segment: 2048, dim: 128, heads: 32, streams: 64 };
  const cases = withFloors(rates, [
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
      { what: 'decode, batch.step', ...shape, open: 1024, microseconds: 540.25 },
      { what: 'decode, batch.step', ...shape, open: 900, microseconds: 530 },
      { what: 'prefill', ...shape, open: 0, microseconds: 9000 },
    ];
    const [, decode, elsewhere, prefill] = callTable(calls, cases).split('\n');
    expect(decode).toMatch(/540\.3 +40\.3$/);
    expect(elsewhere).toMatch(/ 64 +530\.0$/); // other work than the kernel's
    expect(prefill).toMatch(/ 64 +9000\.0$/);
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

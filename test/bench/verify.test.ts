// gpu-verify's steps, with programs that stand in for those that need a GPU.

import { readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const { single } = require('../../scripts/gpu/outcomes.cjs');
const { steps } = require('../../scripts/gpu/steps.cjs');
const { verify } = require('../../scripts/gpu/verify.cjs');
const { deadlineIn, runWithin } = require('../../scripts/gpu/within.cjs');

type Run = (command: string, args: string[], options?: object) => Promise<{ passed: boolean }>;

const script = (body: string): [string, string[]] => [process.execPath, ['-e', body]];

test('a deadline counts down to nothing, and not below', () => {
  let now = 5000;
  const deadline = deadlineIn(300, () => now);
  expect(deadline.left()).toBe(300);
  now += 299_000;
  expect(deadline.left()).toBe(1);
  now += 2000;
  expect(deadline.left()).toBe(0);
});

describe('a program', () => {
  const ample = () => deadlineIn(60);

  test('gives what it prints on both streams, and how it ended', async () => {
    const [command, args] = script('console.log("out"); console.error(process.env.WORD); process.exit(3)');
    const result = await runWithin(ample(), command, args, { env: { WORD: 'err' } });
    expect(result).toMatchObject({ passed: false, ending: 3 });
    expect(result.output).toMatch(/out/);
    expect(result.output).toMatch(/err/);
    expect(await runWithin(ample(), ...script(''))).toMatchObject({ passed: true, ending: 0 });
  });

  test('that is not there has failed', async () => {
    expect(await runWithin(ample(), '/no/such/program', [])).toMatchObject({
      passed: false,
      ending: 'ENOENT',
    });
  });

  test('is not started when no time is left', async () => {
    const result = await runWithin(deadlineIn(0), '/no/such/program', []);
    expect(result).toEqual({ passed: false, output: '', ending: 'out of time' });
  });

  test.each([
    ['its own limit', 60, { seconds: 2.5 }],
    ['the deadline', 2.5, { seconds: 60 }],
  ])('is ended by %s, with what it has started', async (_, seconds, options) => {
    const file = join(tmpdir(), `gpu-verify-test-${process.pid}-${seconds}`);
    const beat = `setInterval(() => require('fs').appendFileSync(${JSON.stringify(file)}, '.'), 20)`;
    const spawning = `require('child_process').spawn(process.execPath, ['-e', ${JSON.stringify(beat)}]); ${beat}`;
    const start = performance.now();
    const result = await runWithin(deadlineIn(seconds), ...script(spawning), options);
    expect(result).toMatchObject({ passed: false, ending: 'out of time' });
    expect(performance.now() - start).toBeLessThan(20_000);
    await new Promise((resolve) => setTimeout(resolve, 100)); // a write that is under way
    const written = readFileSync(file, 'utf8').length;
    expect(written).toBeGreaterThan(0);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(readFileSync(file, 'utf8')).toHaveLength(written);
    rmSync(file);
  });
});

describe('the steps', () => {
  const one = async ({ run }: { run: Run }) => single('one', await run(...script('')));

  test('are golden, kernels, repeats, suite, sanitizer', () => {
    expect(Object.keys(steps)).toEqual(['golden', 'kernels', 'repeats', 'suite', 'sanitizer']);
  });

  test('count what failed, and say so', async () => {
    const lines: string[] = [];
    const fake = {
      one,
      two: async ({ run }: { run: Run }) =>
        single('two', await run(...script('console.log("why"); process.exit(1)'))),
      three: async () => ({ skipped: 'it is not installed here' }),
      four: () => Promise.reject(new Error('no file')),
      five: () => {
        throw new Error('never taken');
      },
    };
    const only = ['one', 'two', 'three', 'four'];
    const result = await verify(fake, only, {
      deadline: deadlineIn(60),
      say: (line: string) => lines.push(line),
    });
    expect(result.failed).toBe(2);
    expect(Object.keys(result.steps)).toEqual(only);
    expect(result.steps.one).toMatchObject({ passed: 1, failures: [] });
    expect(result.steps.two.failures).toEqual([{ name: 'two', reason: 'ended with 1: why' }]);
    expect(result.steps.three).toMatchObject({ skipped: 'it is not installed here' });
    expect(result.steps.four.failures).toEqual([{ name: 'four', reason: 'no file' }]);
    expect(lines.join('\n')).toMatch(
      /^one +1 passed, 0 failed .*\ntwo .*1 failed.*\n {2}FAILED two: ended with 1: why\nthree +it is not/,
    );
  });

  test('that no longer fit have failed', async () => {
    const hangs = async ({ run }: { run: Run }) =>
      single('hangs', await run(...script('setInterval(() => {}, 1e6)')));
    const { failed, steps } = await verify({ hangs, one }, ['hangs', 'one'], {
      deadline: deadlineIn(0.5),
      say() {},
    });
    expect(failed).toBe(2);
    expect(steps.hangs.failures).toEqual([{ name: 'hangs', reason: 'out of time' }]);
    expect(steps.one).toMatchObject({ passed: 0, failures: [{ name: 'one', reason: 'out of time' }] });
  });

  test('without jest the suite has failed', async () => {
    const run = () => Promise.reject(new Error('never run'));
    const outcome = await steps.suite({ run, jest: '/no/such/jest.js', selection: [] });
    expect(outcome).toEqual({ passed: 0, failures: [{ name: 'jest', reason: 'it is not installed here' }] });
  });

  test('a jest that leaves no report has failed, however it ended', async () => {
    const run = async () => ({ passed: true, ending: 0, output: 'nothing' });
    const outcome = await steps.suite({ run, jest: __filename, selection: [] });
    expect(outcome).toEqual({
      passed: 0,
      failures: [{ name: 'jest', reason: 'ended with 0: nothing' }],
    });
  });

  // With no time at all nothing is started: every step that counts is there to fail.
  test('all fail when there is no time, but for a sanitizer that is not installed', async () => {
    const { steps: taken } = await verify(steps, Object.keys(steps), {
      commit: 'x',
      jest: __filename, // a file that is there
      selection: [],
      deadline: deadlineIn(0),
      say() {},
    });
    for (const name of ['golden', 'kernels', 'repeats', 'suite']) {
      expect(taken[name].passed).toBe(0);
      for (const { reason } of taken[name].failures) expect(reason).toBe('out of time');
    }
    expect(taken.golden.failures).toHaveLength(2);
    expect(taken.suite.failures).toHaveLength(1);
    expect(taken.sanitizer.skipped ?? taken.sanitizer.failures[0].reason).toMatch(
      /not installed|out of time/,
    );
  });
});

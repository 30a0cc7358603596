import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const root = path.join(__dirname, '../..');
const main = path.join(root, 'dist/cli/main.js');

function run(...args: string[]): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', timeout: 55_000 });
}

function json(...args: string[]) {
  const { status, stdout, stderr } = run(...args, '--json');
  return { status, stderr, result: JSON.parse(stdout) };
}

/** Small enough for a build with sanitizers. */
const SMALL = ['--segment', '64', '--heads', '8', '--value-dim', '16', '--seed', '1'];

describe('the program', () => {
  test('--help lists the subcommands', () => {
    const { status, stdout } = run('--help');
    expect(status).toBe(0);
    for (const command of ['devices', 'demo', 'bench'])
      expect(stdout).toMatch(new RegExp(`^ +${command}`, 'm'));
  });

  test('--version is that of the package', () => {
    expect(run('--version').stdout.trim()).toBe(require(path.join(root, 'package.json')).version);
  });

  test.each([
    [['--nonsense'], /unknown option '--nonsense'/],
    [['nonsense'], /unknown command 'nonsense'/],
    [['demo', '--nonsense'], /unknown option '--nonsense'/],
    [['demo', '--tokens', 'many'], /whole number/],
    [['demo', '--needles', '33'], /at most 32/],
    [['bench', '--rule', 'none'], /Allowed choices are delta, linear/],
    [['bench', '--seconds', '-1'], /above 0/],
  ])('%j is refused with a message', (args, message) => {
    const { status, stdout, stderr } = run(...args);
    expect(status).not.toBe(0);
    expect(stderr).toMatch(message);
    expect(stdout).toBe('');
  });

  test.each([
    [['bench', '--heads', '5000'], /^infini-stream: .*\(ERR_OUT_OF_RANGE\)$/m],
    [['demo', '--tokens', '1'], /^infini-stream: .*too few/m],
    [['demo', '--file', '/nowhere/at/all'], /^infini-stream: .*\(ENOENT\)$/m],
    [['demo', '--device', 'tpu', '--tokens', '9000'], /^infini-stream: .*\(ERR_OUT_OF_RANGE\)$/m],
  ])('%j fails in one line', (args, message) => {
    const { status, stderr } = run(...args);
    expect(status).toBe(1);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/^ +at /m);
  });
});

describe('devices', () => {
  test('lists the CPU, and says why there is no GPU', () => {
    const { status, result } = json('devices');
    expect(status).toBe(0);
    expect(result.devices[0]).toMatchObject({ id: 'cpu', backend: 'cpu' });
    expect(result.devices[0].threads).toBeGreaterThan(0);
    if (!result.cuda.used) expect(result.cuda.reason).toMatch(/\w/);
    expect(run('devices').stdout).toMatch(/^cpu /m);
  });
});

describe('bench', () => {
  test.each(['float32', 'bfloat16', 'float16'])('measures small %s shapes', (dtype) => {
    const sizes = ['--heads', '4', '--kv-heads', '2', '--head-dim', '8,16', '--segment', '16'];
    const { status, result } = json('bench', ...sizes, '--dtype', dtype, '--seconds', '0.05');
    expect(status).toBe(0);
    expect(result).toMatchObject({
      node: process.version,
      cpu: expect.any(String),
      device: expect.any(Object),
    });
    expect(Date.parse(result.date)).not.toBeNaN();
    expect(result.results).toHaveLength(2);
    for (const [i, measured] of result.results.entries()) {
      expect(measured).toMatchObject({
        heads: 4,
        kvHeads: 2,
        headDim: [8, 16][i],
        segment: 16,
        dtype,
        rule: 'delta',
      });
      const { tokensPerSecond, gflops, decode, streamBytes, runs } = measured;
      expect(runs).toBeGreaterThanOrEqual(3);
      for (const { min, median, max } of [tokensPerSecond, gflops]) {
        expect(min).toBeGreaterThan(0);
        expect(median).toBeGreaterThanOrEqual(min);
        expect(max).toBeGreaterThanOrEqual(median);
      }
      expect(decode.tokens).toBeGreaterThanOrEqual(16);
      expect(decode.p90).toBeGreaterThanOrEqual(decode.median);
      expect(streamBytes).toBeGreaterThan(0);
    }
  });

  test('prints a table', () => {
    const { status, stdout } = run(
      'bench',
      '--heads',
      '1',
      '--head-dim',
      '8',
      '--segment',
      '8',
      '--seconds',
      '0.01',
    );
    expect(status).toBe(0);
    expect(stdout).toMatch(/tokens\/s/);
  });
});

describe('demo', () => {
  test.each(['delta', 'linear'])(
    'recalls every pass key with the %s rule, and the controls do not',
    (rule) => {
      const { status, result } = json('demo', '--tokens', '60000', '--rule', rule, ...SMALL);
      expect(status).toBe(0);
      expect(result.recalled).toBe(true);
      expect(result.scores.memory).toMatchObject({ keys: 5, keysRight: 5, digits: 25, digitsRight: 25 });
      for (const control of ['noKeys', 'reset', 'otherMarker']) {
        expect(result.scores[control].keysRight).toBe(0);
        expect(result.scores[control].digitsRight).toBeLessThan(12);
      }
      expect(result.opened).toEqual({ document: 25, withoutSentences: 0 });
      expect(result.times.tokens).toBe(60_000);
      expect(result.bytes.stream).toBe(result.bytes.atStart);
      expect(result.bytes.keyValueCache).toBe((64 + 16) * 8 * 60_000 * 4);
    },
  );

  test('prints the recall by depth, the controls and the bytes held', () => {
    const { status, stdout, stderr } = run('demo', '--tokens', '9000', ...SMALL);
    expect(status).toBe(0);
    expect(stdout.match(/\brecalled$|\d{5} recalled/gm)).toHaveLength(5);
    expect(stdout).toMatch(/not learned/);
    expect(stdout).toMatch(/Controls: all at chance/);
    expect(stdout).toMatch(/a cache +would hold/);
    expect(stderr).toMatch(/100%/);
  });

  test('shows a failed recall as failed', () => {
    const tiny = ['--heads', '1', '--head-dim', '2', '--value-dim', '2', '--segment', '64', '--seed', '1'];
    const { status, stdout } = run('demo', '--tokens', '9000', ...tiny);
    expect(status).toBe(1);
    expect(stdout).toMatch(/RECALL FAILED/);
    expect(stdout).toMatch(/\d{5} FAILED/);
  });

  test('streams a file, again from its beginning where it is short', () => {
    const folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-'));
    try {
      const file = path.join(folder, 'text.txt');
      writeFileSync(file, 'Съешь же ещё этих мягких французских булок. \n'.repeat(50));
      const { status, stdout } = run('demo', '--file', file, '--tokens', '9000', ...SMALL);
      expect(status).toBe(0);
      expect(stdout).toContain(file);
      expect(stdout).toMatch(/too short, so it is read 4\.\d times over/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('stops at once on SIGINT', async () => {
    const child = spawn(process.execPath, [main, 'demo', '--tokens', '300000', ...SMALL], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let stderr = '';
    child.stderr.setEncoding('utf8');
    const interrupted = new Promise<number>((resolve) => {
      child.stderr.on('data', (text: string) => {
        stderr += text;
        if (/ 10%/.test(text)) {
          child.kill('SIGINT');
          resolve(performance.now());
        }
      });
    });
    const exit = new Promise((resolve) => child.on('exit', resolve));
    const begin = await interrupted;
    expect(await exit).toBe(130);
    expect(performance.now() - begin).toBeLessThan(2000);
    expect(stderr).toMatch(/^infini-stream: .*\(ABORT_ERR\)$/m);
  });
});

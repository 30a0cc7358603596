import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { writePasskeyModel } from './passkey-model';
import { json, main, root, run } from './program';

const folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-'));
const file = (name: string) => path.join(folder, name);
/** A random model. */
const MODEL = ['--model', folder];

beforeAll(() => writePasskeyModel(folder));
afterAll(() => rmSync(folder, { recursive: true }));

/** Small enough for a build with sanitizers. */
const SMALL = ['--segment', '64', '--heads', '8', '--value-dim', '16', '--seed', '1'];

describe('the program', () => {
  test('--help lists the subcommands', () => {
    const { status, stdout } = run('--help');
    expect(status).toBe(0);
    for (const command of ['demo', 'passkey', 'gates', 'generate', 'devices', 'bench'])
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
    [['demo', '--features', '--needles', '33'], /at most 32/],
    [['passkey', '--lengths', '1K'], /from 2048 to/],
    [['bench', '--rule', 'none'], /Allowed choices are delta, linear/],
    [['bench', '--seconds', '-1'], /above 0/],
    [['bench', 'scaling', '--lengths', 'long'], /such as 32K/],
    [['bench', '--segment', '1', '--works', 'state'], /no token before/],
  ])('%j is refused with a message', (args, message) => {
    const { status, stdout, stderr } = run(...args);
    expect(status).not.toBe(0);
    expect(stderr).toMatch(message);
    expect(stdout).toBe('');
  });

  test.each([
    [['bench', '--heads', '5000'], /^infini-stream: .*\(ERR_OUT_OF_RANGE\)$/m],
    [['demo', '--features', '--tokens', '1'], /^infini-stream: .*too few/m],
    [['demo', '--features', '--file', '/nowhere/at/all'], /^infini-stream: .*\(ENOENT\)$/m],
    [
      ['demo', '--features', '--device', 'tpu', '--tokens', '9000'],
      /^infini-stream: .*\(ERR_OUT_OF_RANGE\)$/m,
    ],
    [['demo', ...MODEL, '--tokens', '40'], /^infini-stream: 40 tokens are too few/m],
    [['demo', ...MODEL, '--device', 'tpu'], /^infini-stream: .*\(ERR_OUT_OF_RANGE\)$/m],
    [['passkey', '--model', '/nowhere/at/all'], /^infini-stream: .*\(ERR_MODEL\)$/m],
    [['gates', '--model', root], /^infini-stream: .*config\.json.*\(ERR_MODEL\)$/m],
    [['generate', ...MODEL, '--file', '/nowhere/at/all'], /^infini-stream: .*\(ENOENT\)$/m],
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

describe('demo', () => {
  const LITTLE = ['--tokens', '4K', '--seed', '3', ...MODEL];

  test('hides a key in a document of this length, and says how the model reads it', () => {
    const { status, stderr, result } = json('demo', ...LITTLE, '--depth', '0.5');
    expect(status).toBe(result.right ? 0 : 1);
    expect(result).toMatchObject({
      settings: { tokens: 4096, seed: 3, depth: 0.5, haystack: 'filler' },
      key: expect.stringMatching(/^\d{5}$/),
      answer: expect.any(String),
      reset: expect.any(String),
      fed: 4096,
      model: folder,
      node: process.version,
    });
    expect(result.right).toBe(result.answer === result.key);
    expect(Math.abs(result.depth - 0.5)).toBeLessThan(0.02);
    expect(result.bytes.atEnd).toBe(result.bytes.atStart);
    expect(result.bytes.keyValueCache).toBe(2 * 2 * 2 * 4 * 4 * 4096); // layers, k and v, heads of 4, float32
    expect(stderr).toMatch(/100%.*tokens\/s.*held/);
    expect(json('demo', ...LITTLE, '--depth', '0.5').result.answer).toBe(result.answer);
    expect(json('demo', ...LITTLE, '--depth', '0').result.place).toBe(0);
  });

  test('prints the question, the answer and what a cache would hold', () => {
    const { stdout } = run('demo', ...LITTLE, '--haystack', 'english');
    expect(stdout).toMatch(/hidden +"The pass key is \d{5}\. Remember it\./);
    expect(stdout).toMatch(/answer .*(right|WRONG, it is \d{5})$/m);
    expect(stdout).toMatch(/a cache +of keys and values would hold 524 kB by now, \d+ times/);
    expect(stdout).toContain('--seed 3 --tokens 4096 --haystack english');
  });
});

describe('passkey', () => {
  const LITTLE = ['--lengths', '4K,2048', '--depths', 'end,start', '--keys', '2', ...MODEL];

  test('prints the table as JSON, and writes a report', () => {
    const { status, stderr, result } = json('passkey', ...LITTLE, '--html', file('report.html'));
    expect(status).toBe(0);
    expect(result).toMatchObject({
      date: expect.stringMatching(/^\d{4}-/),
      version: expect.any(String),
      node: process.version,
      cpu: expect.any(String),
      device: { id: expect.any(String) },
      model: { name: path.basename(folder), rule: 'linear' },
      settings: {
        lengths: [2048, 4096],
        depths: ['start', 'end'],
        keys: 2,
        haystack: 'filler',
        seed: 1,
      },
      stateBytes: expect.any(Number),
      controlsAtChance: true,
      total: { fed: expect.any(Number), seconds: expect.any(Number), tokensPerSecond: expect.any(Number) },
    });
    expect(Object.keys(result.model.sha256)).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
    expect(result.rows).toHaveLength(2);
    expect(result.rows[0].cells[0]).toEqual({
      depth: 'start',
      accuracy: expect.any(Number),
      interval: [expect.any(Number), expect.any(Number)],
      keysRight: expect.any(Number),
      paper: null,
      answers: [expect.objectContaining({ place: 0 }), expect.any(Object)],
    });
    expect(result.rows[0].cells[0].answers[1]).toEqual({
      key: expect.stringMatching(/^\d{5}$/),
      place: expect.any(Number),
      read: expect.any(String),
      right: expect.any(Number),
      reset: { read: expect.any(String), right: expect.any(Number) },
    });
    expect(result.rows[1]).toMatchObject({ length: 4096, keys: 2, noKey: { atChance: true } });
    expect(stderr).toMatch(/100%.*tokens\/s/);
    expect(readFileSync(file('report.html'), 'utf8')).toMatch(
      /^<!DOCTYPE html>[\s\S]*<svg[\s\S]*<\/html>\n$/,
    );
  });

  test('fails where a control knows the keys, and goes on from a file', () => {
    const resume = ['--resume', file('table.json')];
    expect(run('passkey', ...LITTLE, ...resume).status).toBe(0);
    const kept = JSON.parse(readFileSync(file('table.json'), 'utf8'));
    for (const { answers } of kept.cells) for (const answer of answers) answer.reset.right = 5;
    writeFileSync(file('table.json'), JSON.stringify(kept));
    const { status, stdout, stderr } = run('passkey', ...LITTLE, ...resume);
    expect(status).toBe(1);
    expect(stdout).toContain('CONTROL FAILED');
    expect(stderr).toMatch(/4 cells are in .*table\.json already/);
    expect(stderr).not.toContain('100%');
    expect(run('passkey', ...LITTLE, ...resume, '--seed', '2').stderr).toMatch(/its seed is 1, not 2/);
  });
});

describe('gates', () => {
  test('prints numbers without colours where there is no terminal, and writes files', () => {
    const { status, stdout } = run(
      'gates',
      ...MODEL,
      '--svg',
      file('gates.svg'),
      '--html',
      file('gates.html'),
    );
    expect(status).toBe(0);
    expect(stdout).toMatch(/^ +1( +[01]\.\d\d){4}$/m);
    expect(stdout).not.toContain('\x1b');
    const svg = readFileSync(file('gates.svg'), 'utf8');
    expect(svg).toMatch(/^<svg /);
    expect(readFileSync(file('gates.html'), 'utf8')).toContain(svg.trim());
    const { beta, gate } = json('gates', ...MODEL).result;
    expect(beta).toHaveLength(2);
    expect(gate[1][3]).toBeCloseTo(1 / (1 + Math.exp(-beta[1][3])), 12);
  });
});

describe('generate', () => {
  const text = 'The grass is green. The sky is blue. '.repeat(300);
  const more = (...args: string[]) => run('generate', ...MODEL, '--max-tokens', '12', ...args);

  test('goes on with a file, with standard input and with a prompt alike', () => {
    writeFileSync(file('long.txt'), text);
    const { status, stdout, stderr } = more('--file', file('long.txt'), '--prompt', 'The sun');
    expect(status).toBe(0);
    expect(stderr).toMatch(/reading 100% {2}[\d,]+ bytes .* tokens, .* held/);
    expect(stdout.length).toBeGreaterThan(6);
    expect(stdout.endsWith('\n')).toBe(true);
    expect(more('--prompt', `${text}The sun`).stdout).toBe(stdout);
    const args = [main, 'generate', ...MODEL, '--max-tokens', '12', '--file', '-', '--prompt', ' sun'];
    expect(spawnSync(process.execPath, args, { encoding: 'utf8', input: `${text}The` }).stdout).toBe(stdout);
  });

  test('draws with a seed, and ends before a stop text', () => {
    const drawn = ['--prompt', 'The', '--temperature', '1', '--top-k', '50'];
    const { stdout } = more(...drawn, '--seed', '1');
    expect(more(...drawn, '--seed', '1').stdout).toBe(stdout);
    expect(more(...drawn, '--seed', '2').stdout).not.toBe(stdout);
    expect(more('--prompt', 'The', '--max-tokens', '0').stdout).toBe('\n');
    const whole = more('--prompt', 'The').stdout;
    const stop = [...whole.trim()].slice(-1)[0];
    const stopped = more('--prompt', 'The', '--stop', 'never said', '--stop', stop).stdout;
    expect(stopped).toBe(`${whole.slice(0, whole.indexOf(stop))}\n`);
  });

  test('stops on SIGINT while it waits for its input', async () => {
    const child = spawn(process.execPath, [main, 'generate', ...MODEL, '--file', '-'], {
      stdio: ['pipe', 'ignore', 'pipe'],
    });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (piece: string) => {
      stderr += piece;
    });
    const exit = new Promise((resolve) => child.on('exit', resolve));
    // More than a pipe holds: when it is gone, the program is reading.
    await new Promise((resolve) => child.stdin.write(text.repeat(100), resolve));
    await new Promise((resolve) => setTimeout(resolve, 300));
    child.kill('SIGINT');
    expect(await exit).toBe(130);
    expect(stderr).toMatch(/^infini-stream: .*\(ABORT_ERR\)$/m);
  });
});

describe('demo --features', () => {
  test.each(['delta', 'linear'])(
    'recalls every pass key with the %s rule, and the controls do not',
    (rule) => {
      const { status, result } = json('demo', '--features', '--tokens', '60000', '--rule', rule, ...SMALL);
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
    const { status, stdout, stderr } = run('demo', '--features', '--tokens', '9000', ...SMALL);
    expect(status).toBe(0);
    expect(stdout.match(/\brecalled$|\d{5} recalled/gm)).toHaveLength(5);
    expect(stdout).toMatch(/not learned/);
    expect(stdout).toMatch(/Controls: all at chance/);
    expect(stdout).toMatch(/a cache +would hold/);
    expect(stderr).toMatch(/100%/);
  });

  test('shows a failed recall as failed', () => {
    const tiny = ['--heads', '1', '--head-dim', '2', '--value-dim', '2', '--segment', '64', '--seed', '1'];
    const { status, stdout } = run('demo', '--features', '--tokens', '9000', ...tiny);
    expect(status).toBe(1);
    expect(stdout).toMatch(/RECALL FAILED/);
    expect(stdout).toMatch(/\d{5} FAILED/);
  });

  test('streams a file, again from its beginning where it is short', () => {
    const text = file('text.txt');
    writeFileSync(text, 'Съешь же ещё этих мягких французских булок. \n'.repeat(50));
    const { status, stdout } = run('demo', '--features', '--file', text, '--tokens', '9000', ...SMALL);
    expect(status).toBe(0);
    expect(stdout).toContain(text);
    expect(stdout).toMatch(/too short, so it is read 4\.\d times over/);
  });

  test('stops at once on SIGINT', async () => {
    const child = spawn(process.execPath, [main, 'demo', '--features', '--tokens', '300000', ...SMALL], {
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

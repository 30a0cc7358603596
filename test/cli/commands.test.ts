import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Result } from '../../lib/cli/bench/run';
import type { Curve } from '../../lib/cli/bench/scaling';
import { writePasskeyModel } from './passkey-model';

const root = path.join(__dirname, '../..');
const main = path.join(root, 'dist/cli/main.js');

function run(...args: string[]): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', timeout: 55_000 });
}

function json(...args: string[]) {
  const { status, stdout, stderr } = run(...args, '--json');
  return { status, stderr, result: JSON.parse(stdout) };
}

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

describe('bench', () => {
  const QUICK = ['--rounds', '2', '--seconds', '0.01'];
  const works = ['prefill', 'decode', 'state', 'batch', 'step'];

  test.each(['float32', 'bfloat16', 'float16'])('measures small %s shapes', (dtype) => {
    const sizes = ['--heads', '4', '--kv-heads', '2', '--head-dim', '8,16', '--segment', '16'];
    const few = ['--streams', '3', '--dtype', dtype, '--threads', '1', ...QUICK];
    const { status, result } = json('bench', ...sizes, ...few);
    expect(status).toBe(0);
    expect(result.command).toBe(`npx infini-stream bench ${[...sizes, ...few].join(' ')} --json`);
    expect(result).toMatchObject({
      node: process.version,
      cpu: expect.any(String),
      device: expect.any(Object),
    });
    expect(Date.parse(result.date)).not.toBeNaN();
    const shape = { heads: 4, kvHeads: 2, segment: 16, dtype, rule: 'delta', threads: 1 };
    expect(result.results).toHaveLength(10);
    for (const [i, measured] of result.results.entries()) {
      const work = works[i >> 1];
      expect(measured.streams).toBe(['batch', 'step'].includes(work) ? 3 : undefined);
      expect(measured).toMatchObject({ ...shape, work, headDim: [8, 16][i % 2], skipped: [] });
      const [one, ...others] = measured.contenders;
      expect(others).toEqual([]);
      expect(one).toMatchObject({ name: 'infini-stream', runs: 2, firstIsFaster: null });
      const { min, median, max } = one.microsecondsPerToken;
      expect(min).toBeGreaterThan(0);
      expect(median).toBeGreaterThanOrEqual(min);
      expect(max).toBeGreaterThanOrEqual(median);
      expect(one.tokensPerSecond * median).toBeCloseTo(1e6, 0);
      expect(one.gbps).toBeGreaterThan(0);
      expect(one.about.bytes).toBeGreaterThan(0);
      expect(one.about.error).toBeLessThan(dtype === 'float32' ? 1e-6 : 5e-3);
      expect(one.ofFloor).toBeCloseTo(measured.floor.microsecondsPerToken / median, 9);
      if (work === 'decode') expect(one.token.p90).toBeGreaterThanOrEqual(one.token.median);
    }
    expect(result.limits.flops).toBeGreaterThan(1e8);
    for (const { bandwidth } of result.limits.reads) expect(bandwidth).toBeGreaterThan(1e8);
    for (const cost of [result.binding.sync, result.binding.async, result.binding.batchOf64])
      expect(cost).toBeGreaterThan(0);
  });

  const ONE = ['--heads', '1', '--head-dim', '8', '--segment', '8', ...QUICK];

  test('prints a table, and what changed since an older result', () => {
    const { result } = json('bench', ...ONE);
    for (const { contenders } of result.results) {
      const time = contenders[0].microsecondsPerToken;
      for (const key of Object.keys(time)) time[key] /= 1e6;
    }
    writeFileSync(file('older.json'), JSON.stringify(result));
    const { status, stdout } = run('bench', ...ONE, '--compare', file('older.json'));
    expect(status).toBe(0);
    expect(stdout).toMatch(/tokens\/s/);
    expect(stdout).toMatch(
      /^ {2}decode float32 delta, 1\/1 heads of 8, segments of 8, \d+ threads: .*, slower$/m,
    );
  });

  test('draws a page that needs nothing but itself', () => {
    const { status, stderr } = run('bench', ...ONE, '--html', file('bench.html'));
    expect([status, stderr]).toEqual([0, expect.any(String)]);
    const html = readFileSync(file('bench.html'), 'utf8');
    expect(html.match(/<svg /g)).toHaveLength(2); // no peers, no third one
    expect(html).toContain('operations for each byte from memory');
    expect(html).toContain('microseconds for a token');
    expect(html.match(/<td>infini-stream<\/td>/g)).toHaveLength(works.length);
    expect(html).not.toMatch(/<script|src=/);
  });

  test('many streams are measured with the first segment length only', () => {
    const several = ['--heads', '1', '--head-dim', '8', '--segment', '8,16', '--streams', '2', ...QUICK];
    const { result } = json('bench', ...several, '--works', 'state,step');
    const measured = result.results.map(({ work, segment }: Result) => [work, segment]);
    expect(measured).toEqual([
      ['state', 8],
      ['state', 16],
      ['step', 8],
    ]);
  });

  test('peers that can not be had are said to be skipped', () => {
    writeFileSync(file('no_peers.py'), 'import sys\nsys.exit("nothing here")\n');
    writeFileSync(file('silent.cjs'), '');
    writeFileSync(file('mute.cjs'), 'console.log("what?")');
    const peers = ['no_peers.py', 'silent.cjs', 'mute.cjs'];
    const list = peers.map(file).join(',');
    const { status, result } = json('bench', ...ONE, '--works', 'prefill', '--peers', list);
    expect(status).toBe(0);
    const [{ contenders, skipped }] = result.results;
    expect(contenders).toHaveLength(1);
    expect(skipped.map(({ name }: { name: string }) => name)).toEqual(peers);
    expect(skipped[0].why).toMatch(/nothing here|ENOENT|ended/);
    expect(skipped[1].why).toBe('its process ended');
    expect(skipped[2].why).toBe("it answered 'what?'");
  });

  test('to a peer many streams are more heads', () => {
    const asked = file('asked.txt');
    const program = `
      const offers = [
        { name: 'other', works: ['decode'], otherWork: true },
        { name: 'same', works: ['state', 'batch', 'step'] },
      ];
      for await (const line of require('node:readline').createInterface({ input: process.stdin })) {
        const asked = JSON.parse(line);
        if (asked.peer) require('node:fs').appendFileSync(${JSON.stringify(asked)}, line + '\\n');
        const ready = { ready: true, error: 0, bytes: 7 };
        const answer = asked.offers ? { offers } : asked.run ? { seconds: 1, tokens: 8 } : ready;
        console.log(JSON.stringify(answer));
      }`;
    writeFileSync(file('peer.cjs'), `(async () => {${program}})();`);
    const several = ['--heads', '2', '--head-dim', '8', '--segment', '8', '--streams', '3', '--threads', '1'];
    const { status, result } = json('bench', ...several, ...QUICK, '--peers', file('peer.cjs'));
    expect(status).toBe(0);
    const contenders = (at: number) => result.results[at].contenders.slice(1);
    expect(contenders(0)).toEqual([]);
    expect(contenders(1)).toMatchObject([
      { name: 'other', gflops: null, ofFloor: null, about: { bytes: 7 } },
    ]);
    const names = ['same', 'same', 'same'];
    expect([2, 3, 4].flatMap(contenders).map(({ name }) => name)).toEqual(names);
    expect([2, 3, 4].map((at) => contenders(at)[0].tokensPerSecond)).toEqual([8, 24, 24].map(close));
    const questions = readFileSync(asked, 'utf8').trim().split('\n');
    const shape = { headDim: 8, segment: 8, dtype: 'float32', rule: 'delta', threads: 1 };
    expect(questions.map((line) => JSON.parse(line))).toMatchObject([
      { peer: 'other', work: 'decode', heads: 2, segments: 1, ...shape },
      { peer: 'same', work: 'state', heads: 2, segments: 1024, ...shape },
      { peer: 'same', work: 'prefill', heads: 6, segments: 1, ...shape },
      { peer: 'same', work: 'decode', heads: 6, segments: 1, ...shape },
    ]);
  });
  const close = (value: number) => expect.closeTo(value, 6);

  test('scaling measures along a stream, threads and streams, and draws it', () => {
    const little = [
      '--heads',
      '2',
      '--kv-heads',
      '1',
      '--head-dim',
      '8',
      '--segment',
      '16',
      '--rule',
      'linear',
    ];
    const where = ['--lengths', '10,100,1K', '--threads', '1,2', '--streams', '1,3'];
    const page = ['--html', file('scaling.html')];
    const { status, stderr, result } = json('bench', 'scaling', ...little, ...where, ...page, ...QUICK);
    expect(status).toBe(0);
    expect(stderr).toMatch(/100%.*1,024 tokens/);
    expect(result).toMatchObject({ heads: 2, kvHeads: 1, headDim: 8, segment: 16, dtype: 'float32' });
    expect(result.command).toMatch(/^npx infini-stream bench scaling --heads 2 /);
    const at = ({ along, work, points }: Curve) => [along, work, points.map((point) => point.at)];
    expect(result.curves.map(at)).toEqual([
      ['tokens', 'prefill', [16, 96, 1024]],
      ['tokens', 'decode', [16, 96, 1024]],
      ['threads', 'prefill', [1, 2]],
      ['threads', 'decode', [1, 2]],
      ['streams', 'step', [1, 3]],
    ]);
    for (const { along, points } of result.curves as Curve[]) {
      for (const [i, { microsecondsPerToken, firstIsFaster, about }] of points.entries()) {
        expect(microsecondsPerToken.min).toBeGreaterThan(0);
        expect(firstIsFaster === null).toBe(i === 0);
        expect(about?.error).toBeLessThan(1e-6);
        expect(about?.bytes).toBe((along === 'streams' ? [1, 3][i] : 1) * (points[0].about?.bytes ?? 0));
      }
    }
    const html = readFileSync(file('scaling.html'), 'utf8');
    expect(html.match(/<svg /g)).toHaveLength(3);
    expect(html).toContain('<td>1,024</td>');
    expect(html).not.toMatch(/<script|src=/);
  });

  test('scaling prints a table', () => {
    const { status, stdout } = run('bench', 'scaling', '--lengths', '8,16', '--streams', '2', ...ONE);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^ {2}decode +tokens +8 +[\d,]+ /m);
    expect(stdout).toMatch(/^ {2}step +streams +2 +[\d,]+ /m);
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

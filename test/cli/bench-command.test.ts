import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Result } from '../../lib/cli/bench/run';
import type { Curve } from '../../lib/cli/bench/scaling';
import { json, run } from './program';

const folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-'));
const file = (name: string) => path.join(folder, name);
afterAll(() => rmSync(folder, { recursive: true }));

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
    const { reads, triads } = result.limits;
    expect([reads.length, triads.length]).toEqual([7, 7]);
    for (const { bandwidth } of [...reads, ...triads]) expect(bandwidth).toBeGreaterThan(1e8);
    expect(result.limits.tileFlops > 0).toBe(result.simd === 'amx' || result.simd === 'tiles');
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

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { arch } from 'node:os';
import path from 'node:path';
import { type DeviceInfo, listDevices } from '../../lib';
import { SEED } from '../support/seeded';

/** The level is chosen when the addon is loaded, so every other level gets a jest of its own. */
const LEVELS = ['portable', 'avx2', 'avx512', 'amx'] as const;
const NEEDED: Record<string, string[]> = {
  portable: [],
  avx2: ['avx2', 'fma', 'bmi1', 'bmi2', 'f16c', 'movbe', 'abm'],
  avx512: ['avx512f', 'avx512bw', 'avx512cd', 'avx512dq', 'avx512vl', 'avx2', 'fma'],
  amx: ['avx512f', 'avx512bw', 'avx512cd', 'avx512dq', 'avx512vl', 'avx2', 'fma', 'amx_bf16', 'amx_tile'],
};
const ROOT = path.join(__dirname, '../..');
const SUITES = [
  ...['grid', 'options', 'logits', 'memory-extremes', 'splits', 'simd'].map((name) => `parity/${name}`),
  ...['parity', 'pytorch'].map((name) => `model/${name}`),
];

const forced = process.env.INFINI_CPU;

function machineHas(level: string): boolean {
  if (level === 'portable') return true;
  if (arch() !== 'x64' || process.platform !== 'linux') return false;
  const flags = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1].split(/\s+/) ?? [];
  // The kernel may still refuse the tiles to a process: then a process of its own runs another level.
  return (
    NEEDED[level].every((flag) => flags.includes(flag)) &&
    (level !== 'amx' || levelUnder('amx').simd === 'amx')
  );
}

/** What a process with INFINI_CPU=`wish` runs, or why it runs nothing. */
function levelUnder(wish: string): { simd?: string; code?: string; message?: string } {
  const program = `
    const { listDevices, openDevice } = require(${JSON.stringify(ROOT)});
    const answers = [() => openDevice('cpu').info, () => listDevices()[0]].map((ask) => {
      try {
        return { simd: ask().simd };
      } catch ({ code, message }) {
        return { code, message };
      }
    });
    if (new Set(answers.map(JSON.stringify)).size > 1) throw new Error('the two do not agree');
    process.stdout.write(JSON.stringify(answers[0]));`;
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', program], {
    env: { ...process.env, INFINI_CPU: wish },
    encoding: 'utf8',
  });
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout);
}

const simdOf = (info: DeviceInfo) => (info as { simd?: string }).simd;

const available = LEVELS.filter(machineHas);
const best = available[available.length - 1];
/** The best level up to this one. */
const bestUpTo = (most: string) =>
  available.filter((level) => LEVELS.indexOf(level) <= LEVELS.indexOf(most as typeof level)).at(-1);

if (forced) {
  test(`this process runs the best kernels that INFINI_CPU allows`, () => {
    // Not in the list: the models of scripts/wide.cjs.
    expect(simdOf(listDevices()[0])).toBe(bestUpTo(forced) ?? forced);
  });
} else {
  test('the best level that the machine has is the default', () => {
    expect(simdOf(listDevices()[0])).toBe(best);
  });

  test('whoever asks for nothing gets the best level', () => {
    expect(levelUnder('')).toEqual({ simd: best });
  });

  test('whoever asks for more than there is gets the best there is', () => {
    for (const level of LEVELS) expect(levelUnder(level)).toEqual({ simd: bestUpTo(level) });
  });

  test('whoever asks for no level at all is told their names', () => {
    for (const wish of ['nonsense', 'AVX2', ' ', 'portable ', 'x'.repeat(1000)]) {
      const { code, message } = levelUnder(wish);
      expect(code).toBe('ERR_NO_DEVICE');
      expect(message).toMatch(/^Expected amx, avx512, avx2 or portable for INFINI_CPU, .* but received '/);
    }
  });

  for (const level of LEVELS.filter((name) => name !== best)) {
    if (!available.includes(level)) {
      test.skip(`${level}: this machine lacks it`, () => {});
      continue;
    }
    test(`the parity suite passes with the ${level} kernels`, () => {
      const jest = path.join(ROOT, 'node_modules/jest/bin/jest.js');
      const pattern = `test/(${SUITES.join('|')})\\.test`;
      const { status, stderr } = spawnSync(process.execPath, [jest, '--testPathPatterns', pattern], {
        cwd: ROOT,
        env: { ...process.env, INFINI_CPU: level, SEED: String(SEED) },
        encoding: 'utf8',
      });
      if (status !== 0) throw new Error(stderr);
      expect(stderr).toContain(`Test Suites: ${SUITES.length} passed, ${SUITES.length} total`);
    }, 300_000);
  }
}

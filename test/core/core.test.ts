import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { SEED } from '../support/seeded';

const root = path.join(__dirname, '..', '..');
const sourcesOf = (folder: string, pattern = /\.cc$/) =>
  readdirSync(path.join(root, folder))
    .filter((name) => pattern.test(name))
    .map((name) => path.join(root, folder, name));

/** Programs against the sources of native/core, and of native/cpu with its portable kernels, under ThreadSanitizer where the compiler and the kernel allow it. */
test.each<[string, string, number, string[]]>([
  [
    'engine.cc',
    'the engine keeps order and loses nothing, with units and with gathering, in a storm of calls',
    2,
    sourcesOf('native/core'),
  ],
  [
    'crew.cc',
    'the crew runs every unit of a call once, and none when the call is over',
    1,
    sourcesOf('native/core', /^(crew|error)\.cc$/),
  ],
  [
    'cpu.cc',
    'the CPU backend computes the same bits in a storm of calls as on one thread',
    1,
    [...sourcesOf('native/core'), ...sourcesOf('native/cpu')],
  ],
])(
  '%s: %s',
  (source, _, lines, sources) => {
    const folder = mkdtempSync(path.join(tmpdir(), 'infini-core-'));
    const program = path.join(folder, 'program');
    const run = (...sanitizer: string[]) => {
      const level = '-DINFINI_SIMD_LEVEL=portable';
      const flags = [
        '-std=c++20',
        '-O1',
        '-g',
        level,
        ...sanitizer,
        `-I${path.join(root, 'native')}`,
        '-pthread',
      ];
      const made = spawnSync(
        process.env.CXX ?? 'c++',
        [...flags, path.join(__dirname, source), ...sources, '-o', program],
        { encoding: 'utf8' },
      );
      if (made.status !== 0) return { status: made.status, output: made.stderr };
      const { status, stdout, stderr } = spawnSync(program, [String(SEED), '40'], {
        encoding: 'utf8',
        timeout: 120_000,
      });
      return { status, output: stdout + stderr };
    };
    try {
      let result = run('-fsanitize=thread');
      if (/cannot find|unsupported option|FATAL: ThreadSanitizer/.test(result.output)) result = run();
      if (result.status !== 0 || /WARNING/.test(result.output))
        throw new Error(
          `[repeat with SEED=${SEED}] status ${result.status}\n${result.output.slice(0, 4000)}`,
        );
      expect(result.output.match(/^ok/gm)).toHaveLength(lines);
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
  480_000,
);

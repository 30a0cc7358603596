import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { SEED } from '../support/seeded';

const root = path.join(__dirname, '..', '..');
const core = path.join(root, 'native/core');

/** Programs against the sources of native/core, under ThreadSanitizer where the compiler and the kernel allow it. */
test.each([
  [
    'engine.cc',
    'the engine keeps order and loses nothing, with units and with gathering, in a storm of calls',
    2,
  ],
  ['crew.cc', 'the crew runs every unit of a call once, and none when the call is over', 1],
])(
  '%s: %s',
  (source, _, lines) => {
    const folder = mkdtempSync(path.join(tmpdir(), 'infini-core-'));
    const program = path.join(folder, 'program');
    const sources = readdirSync(core)
      .filter((name) => (source === 'crew.cc' ? /^(crew|error)\.cc$/ : /\.cc$/).test(name))
      .map((name) => path.join(core, name));
    const run = (...sanitizer: string[]) => {
      const flags = ['-std=c++20', '-O1', '-g', ...sanitizer, `-I${path.join(root, 'native')}`, '-pthread'];
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
  240_000,
);

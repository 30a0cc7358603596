// The first thing that every npm command does.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, userEnvironment } from './run.js';

const onPosix = process.platform === 'win32' ? describe.skip : describe;

function setup(env: NodeJS.ProcessEnv = {}) {
  const { status, stderr } = spawnSync(process.execPath, [join(root, 'scripts/setup.cjs')], {
    cwd: root,
    env: { ...userEnvironment(), ...env },
    encoding: 'utf8',
  });
  return { status, stderr };
}

/** A machine that has these programs and no others. */
function withOnly(programs: string[], work: (path: string) => void) {
  const folder = mkdtempSync(join(tmpdir(), 'infini-stream-path-'));
  try {
    for (const name of programs) {
      const found = spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).stdout.trim();
      symlinkSync(found, join(folder, name));
    }
    work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

onPosix('the set-up', () => {
  test('says in one sentence what to install when CMake and the compiler are missing', () => {
    withOnly([], (path) => {
      const { status, stderr } = setup({ PATH: path, CXX: '' });
      expect(status).toBe(1);
      expect(stderr.trim().split('\n')).toHaveLength(1);
      expect(stderr).toMatch(
        /needs CMake 3\.24 or newer, a C\+\+20 compiler, and make: on .* run `.*cmake.*`\.$/m,
      );
    });
  });

  test('names only what is missing', () => {
    withOnly(['cmake', 'c++'], (path) => {
      const { status, stderr } = setup({ PATH: path, CXX: '' });
      expect(status).toBe(1);
      expect(stderr).toMatch(/needs make: on/);
    });
  });

  test('has nothing to do the second time', () => {
    expect(setup().status).toBe(0);
    const start = performance.now();
    expect(setup()).toEqual({ status: 0, stderr: '' });
    expect(performance.now() - start).toBeLessThan(10_000);
  });
});

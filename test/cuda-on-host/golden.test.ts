// The emulation's instructions against results that a real GPU gave (golden.cu).

import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildKernelTests } from '../../scripts/kernel-tests.cjs';

const fixture = join(__dirname, 'golden.json');
const onLinux = process.platform === 'linux' ? test : test.skip;

function golden(...args: string[]): { status: number | null; output: string } {
  const program = join(buildKernelTests('plain'), 'golden');
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  return { status, output: `${stdout}${stderr}` };
}

const whenRecorded = existsSync(fixture) ? onLinux : test.skip;
whenRecorded(
  'each PTX wrapper gives what a GPU gave (golden.json; skipped until `npm run gpu:verify` has written it on one)',
  () => {
    const { status, output } = golden('check', fixture);
    if (status !== 0) throw new Error(output);
  },
);

onLinux("results of the emulation are never recorded as a GPU's", () => {
  const folder = mkdtempSync(join(tmpdir(), 'infini-stream-golden-'));
  try {
    const file = join(folder, 'golden.json');
    const { status, output } = golden('write', file);
    expect(status).not.toBe(0);
    expect(output).toMatch(/GPU|emulation/);
    expect(existsSync(file)).toBe(false);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

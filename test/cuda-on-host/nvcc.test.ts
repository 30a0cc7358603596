// The kernels as nvcc sees them, for every architecture of a release.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const root = join(__dirname, '../..');
const hasNvcc = spawnSync('nvcc', ['--version'], { stdio: 'ignore' }).status === 0;

(hasNvcc ? test : test.skip)(
  'the kernels compile for all architectures without a warning, and spill no registers',
  () => {
    const script = join(root, 'scripts/check-kernels.cjs');
    const { status, stdout, stderr } = spawnSync(process.execPath, [script, '--json'], {
      encoding: 'utf8',
      maxBuffer: 1 << 28,
    });
    if (stdout === '') throw new Error(`status ${status}\n${stderr}`);
    const { rows, problems } = JSON.parse(stdout);
    expect(problems).toEqual([]);
    expect(rows.length).toBeGreaterThan(0);
    expect(status).toBe(0);
  },
  900_000,
);

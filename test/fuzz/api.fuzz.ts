import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { lastOperations } from '../support/operation-log';
import { SEED } from '../support/seeded';

const SECONDS = Number(process.env.FUZZ_SECONDS ?? 60);

/**
 * Random and hostile JavaScript values into everything that the package exports (see storm.ts), in a process of its
 * own: a crash is then a failed test that names the seed and the last operations.
 */
test(
  `nothing that JavaScript can say breaks it, in ${SECONDS} s`,
  () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'infini-fuzz-'));
    const log = path.join(folder, 'log');
    const args = ['--expose-gc', '-r', './register.cjs', './storm.ts', String(SEED), String(SECONDS), log];
    const { status, signal, stdout, stderr } = spawnSync(process.execPath, args, {
      cwd: __dirname,
      encoding: 'utf8',
      timeout: SECONDS * 1000 + 180_000,
      killSignal: 'SIGKILL',
    });
    const last = lastOperations(log);
    rmSync(folder, { recursive: true });
    if (status !== 0) {
      throw new Error(
        `[repeat with SEED=${SEED}] status ${status}, signal ${signal}\n${stdout}\n${stderr}\nThe last operations:\n${last}`,
      );
    }
    const outcomes = JSON.parse(stdout) as Record<string, number>;
    console.log(`SEED=${SEED}`, outcomes);
    expect(outcomes.operations).toBeGreaterThan(100 * SECONDS);
    if (SECONDS < 10) return;
    // A storm that only ever fails, or never fails in some way, shows nothing.
    const wanted = [
      'ok',
      'resolved',
      'hostile',
      'ERR_INVALID_ARG_TYPE',
      'ERR_DTYPE',
      'ERR_OUT_OF_RANGE',
      'ERR_SHAPE',
    ];
    wanted.push('ERR_NON_FINITE', 'ERR_CLOSED', 'ERR_BUSY', 'ABORT_ERR', 'ERR_NO_DEVICE');
    expect(wanted.filter((outcome) => !outcomes[outcome])).toEqual([]);
  },
  SECONDS * 1000 + 200_000,
);

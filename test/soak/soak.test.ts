import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { lastOperations } from '../support/operation-log';
import { SEED } from '../support/seeded';
import { sizes } from '../support/sizes';

const { soakSeconds, soakStreams } = sizes;

/** A minute of what `npm run soak -- --minutes 30` does for longer, in a process of its own. */
test(
  `${soakStreams} streams under random calls for ${soakSeconds} s: no wrong value, nothing is kept`,
  () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'infini-soak-log-'));
    const log = path.join(folder, 'log');
    const args = ['--expose-gc', '-r', '../fuzz/register.cjs', './soak.ts'];
    const { status, signal, stdout, stderr } = spawnSync(
      process.execPath,
      [...args, String(SEED), String(soakSeconds), log, String(soakStreams)],
      { cwd: __dirname, encoding: 'utf8', timeout: soakSeconds * 1000 + 500_000, killSignal: 'SIGKILL' },
    );
    const last = lastOperations(log);
    rmSync(folder, { recursive: true });
    if (status !== 0) {
      throw new Error(
        `[repeat with SEED=${SEED}] status ${status}, signal ${signal}\n${stdout}\n${stderr}\nThe last operations:\n${last}`,
      );
    }
    const outcomes = JSON.parse(stdout) as Record<string, number>;
    const wanted = [
      'attend',
      'attendSync',
      'retrieve',
      'attendBatch',
      'step',
      'fork',
      'restore',
      'close',
      'verified',
    ];
    wanted.push('terminated workers', 'ABORT_ERR');
    expect(wanted.filter((outcome) => !outcomes[outcome])).toEqual([]);
  },
  soakSeconds * 1000 + 510_000,
);

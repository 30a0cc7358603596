import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { emulatedTest } from '../cuda/only';
import { lastOperations } from '../support/operation-log';
import { SEED } from '../support/seeded';

const PROCESSES = 2;

/** Some rounds of what `npm run test:faults -- --emulated` does for longer, and for the host's allocations, too. */
emulatedTest(
  "the device's allocations fail at random: calls are refused or succeed, and nothing else happens",
  () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'infini-faults-log-'));
    const [log, control] = ['log', 'control'].map((name) => path.join(folder, name));
    for (let seed = SEED; seed < SEED + PROCESSES; seed++) {
      writeFileSync(control, new Uint8Array(32));
      const args = ['--expose-gc', '-r', '../fuzz/register.cjs', './faults.ts', String(seed), '0', log];
      const { status, signal, stdout, stderr } = spawnSync(process.execPath, args, {
        cwd: __dirname,
        encoding: 'utf8',
        env: { ...process.env, INFINI_FAULTS: control },
        timeout: 120_000,
        killSignal: 'SIGKILL',
      });
      if (status !== 0)
        throw new Error(
          `[repeat with SEED=${seed}] status ${status}, signal ${signal}\n${stdout}\n${stderr}\nThe last operations:\n${lastOperations(log)}`,
        );
      const { failed, ...outcomes } = JSON.parse(stdout);
      expect(failed.device).toBeGreaterThan(20);
      expect(outcomes).toMatchObject({
        attend: expect.any(Number),
        verified: expect.any(Number),
        ERR_OUT_OF_MEMORY: expect.any(Number),
      });
    }
    rmSync(folder, { recursive: true });
  },
);

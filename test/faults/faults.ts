// The operations of the soak while allocations of the addon fail at random (faults.cc): a call succeeds, or it is
// refused with ERR_OUT_OF_MEMORY and its stream is as it was.
//   INFINI_FAULTS=FILE node --expose-gc -r ../fuzz/register.cjs faults.ts SEED SECONDS LOG

import { mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { inspect } from 'node:util';
import type { InfiniError } from '../../lib/errors';
import { Crowd } from '../soak/crowd';
import { draw, OPERATIONS, type Operation, useFolder } from '../soak/operations';
import { rest, turn } from '../soak/rest';
import { startWorker } from '../soak/workers';
import { openTestDevice } from '../support/device';
import { OperationLog } from '../support/operation-log';
import { Rng } from '../support/rng';

const STREAMS = 30;
const ROUND = 150;

const [seed, seconds] = process.argv.slice(2).map(Number);
const log = new OperationLog(process.argv[4]);
const control = openSync(process.env.INFINI_FAULTS as string, 'r+');
const folder = mkdtempSync(path.join(tmpdir(), 'infini-faults-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

function fail(error: unknown): never {
  process.stdout.write(`${inspect(error, { depth: 4 })}\n`);
  process.exit(1);
}
process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);

/** One in so many allocations fails from now on; none at 0. */
function setFaults(oneIn: number): void {
  writeSync(control, Uint32Array.of(oneIn, seed), 0, 8, 0);
}

function countFaults(): { asked: number; failed: number } {
  const counts = new Uint32Array(4);
  readSync(control, counts, 0, 16, 0);
  return { asked: counts[2], failed: counts[3] };
}

/** Nothing else may be said of it, but that the very first thread of the pool could not be started. */
function isShortage(error: unknown): boolean {
  const { code, message } = error as InfiniError;
  return code === 'ERR_OUT_OF_MEMORY' || (code === 'ERR_DEVICE' && /start a thread/.test(message));
}

/** A handle of its own, and streams on it with calls that its close ends. */
function openAndClose(crowd: Crowd): void {
  const device = openTestDevice();
  const member = crowd.newcomer(device);
  const input = member.input(1, 50);
  const calls = [
    member.stream.attend(input),
    member.stream.snapshot(),
    member.stream.retrieve({ q: input.q }),
  ];
  for (const call of calls)
    crowd.follow<unknown>(
      'call of a closed device',
      call,
      () => {},
      () => {},
      () => ['ERR_CLOSED'],
    );
  device.close();
  crowd.count('closed devices');
}

const operations: Operation[] = [
  ...OPERATIONS.filter(({ name }) => name !== 'close device'),
  { weight: 3, name: 'open and close', run: openAndClose },
];

async function main(): Promise<void> {
  useFolder(folder);
  const crowd = new Crowd(new Rng(seed), STREAMS);
  crowd.mayFail = isShortage;
  const end = Date.now() + seconds * 1000;
  let index = 0;
  while (Date.now() < end) {
    if (index % (4 * ROUND) === 0) await startWorker(50, 'ERR_OUT_OF_MEMORY');
    setFaults(crowd.rng.pick([3, 10, 30, 100, 1000]));
    for (let i = 0; i < ROUND; i++, index++) {
      crowd.rng = new Rng(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index, 0x85ebca6b));
      const { name, run } = draw(crowd.rng, operations);
      log.record(index, name);
      try {
        run(crowd);
      } catch (error) {
        crowd.judge(name, error);
      }
      if (crowd.rng.uniform() < 0.2) await turn();
    }
    if (crowd.rng.uniform() < 0.5) await crowd.settle();
    if (crowd.rng.uniform() < 0.5) globalThis.gc?.();
    setFaults(0);
    await rest(crowd, 1);
  }
  for (const device of crowd.devices) device.close();
  process.stdout.write(`${JSON.stringify({ operations: index, ...countFaults(), ...crowd.outcomes })}\n`);
  log.close();
}

main().catch(fail);

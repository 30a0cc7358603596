// Random calls on many streams for a long time, every one of them kept, and repeated against the oracle of witness.ts.
//   node --expose-gc -r ../fuzz/register.cjs soak.ts SEED SECONDS STREAMS LOG
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { inspect } from 'node:util';
import { emulated } from '../support/device';
import { OperationLog } from '../support/operation-log';
import { Rng } from '../support/rng';
import { Crowd } from './crowd';
import { OPERATIONS, useFolder } from './operations';
import { expectFlat, type Sample, sample } from './resources';
import { startWorker, terminateWorkers } from './workers';

const MOST_PENDING = 60;
/** So often, in operations and in times in all, everything comes to rest and is looked at. */
const ROUND = emulated ? 40 : 2000;
const LEAST_ROUNDS = 6;

const [seed, seconds, streams] = process.argv.slice(2).map(Number);
const log = new OperationLog(process.argv[5]);
const folder = mkdtempSync(path.join(tmpdir(), 'infini-soak-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

function fail(error: unknown): never {
  process.stdout.write(`${inspect(error, { depth: 4 })}\n`);
  process.exit(1);
}
process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Nothing is under way: what there is must be what was made, and what it was given. */
async function rest(crowd: Crowd, share: number): Promise<Sample> {
  await crowd.settle();
  await terminateWorkers();
  for (const member of crowd.members) {
    if (!member.settled) throw new Error(`a call was lost: ${member.describe()}`);
    if (crowd.rng.uniform() < share) {
      await member.verify();
      crowd.count('verified');
    }
  }
  await expectNothingKept(crowd);
  return sample();
}

/** What was forgotten is collected, what was closed is gone: only the members are left, and no call. */
async function expectNothingKept(crowd: Crowd): Promise<void> {
  const wanted = {
    streams: crowd.members.length,
    streamBytes: crowd.members.reduce((sum, { stream }) => sum + stream.byteLength, 0),
    scratchBytes: 0,
    stagingBytes: 0,
    tensorBytes: 0,
    pendingCalls: 0,
  };
  for (let patience = 200; ; patience--) {
    globalThis.gc?.();
    for (let i = 0; i < 5; i++) await turn();
    const stats = crowd.devices[0].stats();
    const kept = (Object.keys(wanted) as (keyof typeof wanted)[]).filter((key) => stats[key] !== wanted[key]);
    if (kept.length === 0) return;
    if (patience === 0) throw new Error(`${kept} are kept: ${inspect(stats)} instead of ${inspect(wanted)}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function soak(): Promise<void> {
  useFolder(folder);
  const crowd = new Crowd(new Rng(seed), streams);
  const total = OPERATIONS.reduce((sum, [weight]) => sum + weight, 0);
  const samples: Sample[] = [];
  const end = Date.now() + seconds * 1000;
  let index = 0;
  while (Date.now() < end || samples.length < LEAST_ROUNDS) {
    // Its own generator: what operation 1234 does depends on earlier ones as little as can be.
    crowd.rng = new Rng(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index, 0x85ebca6b));
    let dice = crowd.rng.uniform(0, total);
    const [, name, run] = OPERATIONS.find(([weight]) => (dice -= weight) < 0) ?? OPERATIONS[0];
    log.record(index, name);
    run(crowd);
    index++;
    if (index % (ROUND / 4) === 0) startWorker(emulated ? 20 : 300);
    if (crowd.pending > MOST_PENDING) await crowd.settle();
    else if (crowd.rng.uniform() < 0.2) await turn();
    if (index % ROUND === 0) samples.push(await rest(crowd, 0.2));
  }
  await rest(crowd, 1);
  const growth = expectFlat(samples, process.env.INFINI_STREAM_SANITIZED !== undefined);
  const last = samples[samples.length - 1];
  for (const device of crowd.devices) device.close();
  process.stdout.write(`${JSON.stringify({ operations: index, rounds: samples.length, growth, last, ...crowd.outcomes })}\n`);
  log.close();
}

soak().catch(fail);

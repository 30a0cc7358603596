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
import { draw, OPERATIONS, useFolder } from './operations';
import { expectFlat, type Sample, sample } from './resources';
import { rest, turn } from './rest';
import { startWorker } from './workers';

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

async function soak(): Promise<void> {
  useFolder(folder);
  const crowd = new Crowd(new Rng(seed), streams);
  const samples: Sample[] = [];
  const end = Date.now() + seconds * 1000;
  let index = 0;
  while (Date.now() < end || samples.length < LEAST_ROUNDS) {
    // Its own generator: what operation 1234 does depends on earlier ones as little as can be.
    crowd.rng = new Rng(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index, 0x85ebca6b));
    const { name, run } = draw(crowd.rng, OPERATIONS);
    log.record(index, name);
    run(crowd);
    index++;
    if (index % (ROUND / 4) === 0) {
      startWorker(emulated ? 20 : 300);
      crowd.count('terminated workers');
    }
    if (crowd.pending > MOST_PENDING) await crowd.settle();
    else if (crowd.rng.uniform() < 0.2) await turn();
    if (index % ROUND > 0) continue;
    await rest(crowd, 0.2);
    samples.push(sample());
  }
  await rest(crowd, 1);
  const growth = expectFlat(samples, process.env.INFINI_STREAM_SANITIZED !== undefined);
  const last = samples[samples.length - 1];
  for (const device of crowd.devices) device.close();
  process.stdout.write(
    `${JSON.stringify({ operations: index, rounds: samples.length, growth, last, ...crowd.outcomes })}\n`,
  );
  log.close();
}

soak().catch(fail);

// The storm itself, run by api.fuzz.ts in a process of its own: node --expose-gc -r register.cjs storm.ts SEED SECONDS LOG

import { inspect } from 'node:util';
import { openTestDevice } from '../support/device';
import { OperationLog } from '../support/operation-log';
import { Rng } from '../support/rng';
import { bytesOf } from '../support/tensors';
import { flexibleBatch, Team } from './batch-call';
import { hostileCall } from './hostile-call';
import { misuse, openings, streamCall } from './misuse';
import { sharedCall } from './shared-call';
import { snapshotCall } from './snapshot-call';
import { transitionCall } from './transition-call';
import { validCall } from './valid-call';
import { Victim } from './victim';
import { World } from './world';

const PATIENCE = 60_000;

const [seed, seconds] = process.argv.slice(2).map(Number);
const log = new OperationLog(process.argv[4]);

function fail(error: unknown): never {
  process.stdout.write(`${inspect(error, { depth: 4 })}\n`);
  process.exit(1);
}
process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);

/** The same stream every time: what it computes must not change whatever happened to others. */
function canary(): Buffer {
  const rng = new Rng(7);
  const numbers = (length: number) => Float32Array.from({ length }, () => rng.normal());
  const device = openTestDevice();
  const stream = device.createStream({
    heads: 4,
    kvHeads: 2,
    headDim: 32,
    valueDim: 24,
    segmentLength: 50,
    gate: 0.3,
  });
  const input = { q: numbers(170 * 128), k: numbers(170 * 64), v: numbers(170 * 48) };
  const output = Buffer.concat([bytesOf(stream.attendSync(input)), bytesOf(stream.memory().matrix)]);
  device.close();
  return output;
}

async function storm(): Promise<void> {
  const world = new World(new Rng(seed));
  const victim = new Victim(openTestDevice());
  const song = canary();
  world.interfere = () => validCall(world);
  let team = new Team(world, world.config());
  const step = () => {
    if (world.rng.uniform() < 0.02) {
      team.close();
      team = new Team(world, world.config());
    }
    if (world.rng.uniform() < 0.7) team.step(world);
    else validCall(world, world.rng.pick(team.subjects));
  };
  // Drawn by a number up to the last one's.
  const operations: [number, string, () => void][] = [
    [300, 'valid', () => validCall(world)],
    [550, 'hostile', () => hostileCall(world)],
    [670, 'stream', () => streamCall(world)],
    [770, 'misuse', () => misuse(world)],
    [870, 'openings', () => openings(world)],
    [980, 'victim', () => victim.attack(world)],
    [1100, 'shared', () => sharedCall(world)],
    [1150, 'batch', () => flexibleBatch(world)],
    [1250, 'step', step],
    [1300, 'snapshot', () => snapshotCall(world)],
    [1350, 'transition', () => transitionCall(world)],
    [1351, 'gc', () => globalThis.gc?.()],
  ];
  const end = Date.now() + seconds * 1000;
  let index = 0;
  while (Date.now() < end) {
    // Its own generator: what operation 1234 does depends on earlier ones as little as can be.
    const rng = new Rng(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index, 0x85ebca6b));
    world.use(rng);
    const dice = rng.uniform(0, operations[operations.length - 1][0]);
    const [, name, run] = operations.find(([upTo]) => dice < upTo) ?? operations[0];
    log.record(index, `${name}...`);
    run();
    log.record(index, `${name}: ${world.hostile.notes.join(' ')}`);
    index++;
    if (world.crowded || rng.uniform() < 0.01) await world.settle(PATIENCE);
    else if (rng.uniform() < 0.2) await new Promise((resolve) => setImmediate(resolve));
    if (index % 2000 === 0) {
      await world.settle(PATIENCE);
      for (const subject of [...world.subjects, ...team.subjects]) subject.compare();
      victim.check();
      if (!canary().equals(song)) throw new Error('a fresh stream computes something else');
    }
  }
  await world.settle(PATIENCE);
  for (const subject of [...world.subjects, ...team.subjects]) subject.compare();
  victim.check();
  if (!canary().equals(song)) throw new Error('a fresh stream computes something else');
  process.stdout.write(`${JSON.stringify({ operations: index, victim: victim.calls, ...world.outcomes })}\n`);
  log.close();
}

storm().catch(fail);

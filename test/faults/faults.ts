// The operations of the soak, and those of a model, while allocations of the addon fail at random (control.h): a call
// succeeds, or it is refused with ERR_OUT_OF_MEMORY and its stream is as it was.
//   INFINI_FAULTS=FILE node --expose-gc -r ../fuzz/register.cjs faults.ts SEED SECONDS LOG
// Those of the host fail in an addon that was built for it, those of the device in every emulated one.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { InfiniError } from '../../lib/errors';
import { Crowd } from '../soak/crowd';
import { OPERATIONS, type Operation } from '../soak/operations';
import { Program } from '../soak/program';
import { rest, turn } from '../soak/rest';
import { startWorker } from '../soak/workers';
import { emulated, openTestDevice } from '../support/device';
import { Rng } from '../support/rng';
import { countFaults, noFaults, setFaults } from './control';
import { Readers } from './readers';

const STREAMS = emulated ? 8 : 30;
const ROUND = emulated ? 60 : 150;
const LEAST_ROUNDS = 4;
/** None on the host, at times: calls get as far as the device then. */
const HOST_FAULTS = emulated ? [0, 0, 10, 100, 1000] : [3, 10, 30, 100, 1000];

/** Nothing else may be said of it, but that the very first thread of the pool could not be started. */
function isShortage(error: unknown): boolean {
  const { code, message } = error as InfiniError;
  return code === 'ERR_OUT_OF_MEMORY' || (code === 'ERR_DEVICE' && /start a thread/.test(message));
}

/** Until it is there, for good. */
function openDeviceAtLast(): void {
  for (let open = false; !open; ) {
    try {
      openTestDevice().close();
      open = true;
    } catch (error) {
      if (!isShortage(error)) throw error;
    }
  }
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

async function main(): Promise<void> {
  const program = new Program();
  const folder = mkdtempSync(path.join(tmpdir(), 'infini-faults-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  setFaults({ host: 20, device: 2 }, program.seed);
  openDeviceAtLast();
  noFaults();
  const crowd = new Crowd(new Rng(program.seed), STREAMS);
  const readers = await Readers.open(folder, crowd);
  crowd.mayFail = isShortage;
  const operations: Operation[] = [
    ...OPERATIONS.filter(({ name }) => name !== 'close device'),
    ...readers.operations,
    { weight: 3, name: 'open and close', run: openAndClose },
  ];
  for (let round = 0; round < LEAST_ROUNDS || !program.timeIsUp; round++) {
    if (round % 4 === 0) await startWorker(emulated ? 5 : 50, 'ERR_OUT_OF_MEMORY');
    const { rng } = crowd;
    setFaults({ host: rng.pick(HOST_FAULTS), device: rng.pick([1, 2, 4]) }, rng.bits());
    for (let i = 0; i < ROUND; i++) {
      program.perform(crowd, operations);
      if (crowd.rng.uniform() < 0.2) await turn();
    }
    if (crowd.rng.uniform() < 0.5) await crowd.settle();
    if (crowd.rng.uniform() < 0.5) globalThis.gc?.();
    noFaults();
    await crowd.settle();
    await readers.rest(crowd);
    await rest(crowd, 1);
  }
  program.finish(crowd, { failed: countFaults() });
}

main();

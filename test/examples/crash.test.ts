// The service of examples/server under load, killed and started again. On the CPU always: there a state is the same bits
// however its tokens were cut.
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadModel, type Model } from '../../lib';
import { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { compileExamples, endServices, MODEL, Service } from './service';
import { Writer } from './writer';

const CLIENTS = 8;
const KILLS = 3;
const REQUESTS = 120; // of all clients, between two kills

let model: Model;
let data: string;
beforeAll(async () => {
  compileExamples();
  model = await loadModel(MODEL, { device: 'cpu' });
  data = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-service-'));
});
afterAll(() => {
  endServices();
  model.close();
  rmSync(data, { recursive: true });
});

const fileOf = ({ user, id }: Writer, end: string) => path.join(data, user, `${id}.${end}`);

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(5);
}

seededTest(
  'kill -9 under load loses no acknowledged token: the state is that of an uninterrupted run, bit for bit',
  async (rng) => {
    const settings = { LOG_TOKENS: '700' }; // snapshots in between
    let service = await Service.start(data, settings);
    const writers: Writer[] = [];
    for (let i = 0; i < CLIENTS; i++) {
      const user = `user-${i}`;
      const id = await service.createStream(user);
      writers.push(new Writer(user, id, new Rng(rng.bits()), model.config.vocabulary));
    }
    const acknowledged = () => writers.reduce((sum, writer) => sum + writer.acknowledged, 0);
    let [snapshots, logs] = [0, 0]; // found at a kill; of logs, those with something in them
    for (let kill = 0; kill < KILLS; kill++) {
      const goal = acknowledged() + REQUESTS;
      const killed = service;
      const enough = () => acknowledged() >= 2 * goal; // never, unless nobody kills it
      const writing = Promise.all(writers.map((writer) => writer.write(killed, enough)));
      await Promise.race([writing, until(() => acknowledged() >= goal)]);
      await sleep(rng.uniform(0, 20));
      await killed.kill();
      await writing;
      for (const writer of writers) {
        if (statSync(fileOf(writer, 'safetensors'), { throwIfNoEntry: false })) snapshots++;
        if (statSync(fileOf(writer, 'log')).size > 0) logs++;
      }
      service = await Service.start(data, settings);
    }
    expect(Math.min(snapshots, logs)).toBeGreaterThan(0);

    const goal = acknowledged() + REQUESTS;
    await Promise.all(writers.map((writer) => writer.write(service, () => acknowledged() >= goal)));
    expect(acknowledged()).toBeGreaterThanOrEqual((KILLS + 1) * REQUESTS);
    await service.stop();

    for (const writer of writers) {
      expect(statSync(fileOf(writer, 'log')).size).toBe(0); // the snapshot has it all
      using session = model.createSession();
      await writer.repeat(session);
      expect(session.tokens).toBe(writer.tokens);
      const expected = await session.snapshot();
      expect(Buffer.compare(readFileSync(fileOf(writer, 'safetensors')), expected)).toBe(0);
    }
  },
  120_000,
);

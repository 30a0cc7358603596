import { type Device, type InfiniError, StreamScheduler } from '../../lib';
import { emulated, openTestDevice } from '../support/device';
import type { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { expectSame, inputFor, Twins } from './support';

const rounds = emulated ? 1 : 6;
const requests = emulated ? 25 : 150;

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const turn = () => new Promise(setImmediate);

/** A client that knows what its stream must be: it gives to the twin what the scheduler has taken. */
class Client extends Twins {
  /** Of requests that have settled, in the order of the calls. */
  #checked: Promise<void> = Promise.resolve();
  readonly outcomes = new Map<string, number>();

  ask(rng: Rng): void {
    const { stream } = this;
    const tokens = rng.pick([1, 1, 1, 2, 7, 16, 17, 40, 100]);
    const input = inputFor(stream, tokens, rng);
    const spoiled = rng.int(0, 9) === 0;
    if (spoiled) rng.pick([input.q, input.k, input.v])[rng.int(0, tokens * 4 - 1)] = Number.NaN;
    const stop = rng.int(0, 5) === 0 ? new AbortController() : undefined;
    const retrieves = rng.int(0, 6) === 0;
    const copy = { q: input.q.slice(), k: input.k.slice(), v: input.v.slice() };
    const options = { signal: stop?.signal };
    const pending = retrieves ? stream.retrieve({ q: input.q }, options) : stream.attend(input, options);
    for (const array of Object.values(input)) array.fill(7);
    if (stop) cutLater(stop, rng.int(0, 8));
    const settled = pending.then(
      (output) => ({ output, code: 'done' }),
      (error: InfiniError) => ({ output: undefined, code: error.code as string }),
    );
    this.#checked = this.#checked.then(async () => {
      const { output, code } = await settled;
      this.outcomes.set(code, (this.outcomes.get(code) ?? 0) + 1);
      const allowed = ['done', 'ERR_BUSY', 'ERR_CLOSED', stop && 'ABORT_ERR', spoiled && 'ERR_NON_FINITE'];
      expect(allowed).toContain(code);
      if (!output) return;
      expectSame(output, await (retrieves ? this.alone.retrieve({ q: copy.q }) : this.alone.attend(copy)));
    });
  }

  checked(): Promise<void> {
    return this.#checked;
  }
}

async function cutLater(stop: AbortController, turns: number): Promise<void> {
  for (let i = 0; i < turns; i++) await turn();
  stop.abort();
}

for (let round = 0; round < rounds; round++) {
  seededTest(
    `a storm of requests, aborts, failures and closed streams leaves each stream as if alone (${round})`,
    async (rng) => {
      const shapes = [
        { heads: 2, headDim: 4, segmentLength: 8 },
        { heads: 4, kvHeads: 2, headDim: 4, valueDim: 6, segmentLength: 32 },
      ];
      const most = Math.max(
        ...shapes.map((shape) => {
          using one = device.createStream(shape);
          return one.byteLength;
        }),
      );
      const scheduler = new StreamScheduler(device, {
        maxBatchTokens: rng.pick([1, 8, 32, 1024]),
        maxQueue: rng.pick([1, 5, 1024]),
        whenFull: rng.pick(['wait', 'reject']),
        deviceBytes: most * rng.pick([1, 2.5, 100]),
      });
      const make = () => new Client(device, scheduler.createStream(rng.pick(shapes)));
      const clients = Array.from({ length: 6 }, make);
      const closed: Client[] = [];
      for (let i = 0; i < requests; i++) {
        rng.pick(clients).ask(rng);
        if (rng.int(0, 2) === 0) for (let turns = rng.int(0, 4); turns > 0; turns--) await turn();
        if (rng.int(0, 40) === 0) {
          const [one] = clients.splice(rng.int(0, clients.length - 1), 1, make());
          one.stream.close();
          closed.push(one);
        }
      }
      await scheduler.drain();
      for (const one of [...clients, ...closed]) await one.checked();
      const outcomes = new Set([...clients, ...closed].flatMap((one) => [...one.outcomes.keys()]));
      expect(outcomes).toContain('done');
      expect(scheduler.stats()).toMatchObject({
        streams: 6,
        queued: 0,
        running: 0,
        outside: 0,
        queuedBytes: 0,
        savedBytes: 0,
      });
      for (const one of clients) await one.compare(rng);
      scheduler.close();
      expect(scheduler.stats()).toMatchObject({
        streams: 0,
        deviceBytes: 0,
        hostBytes: 0,
        streamsOnDevice: 0,
      });
      for (const one of [...clients, ...closed]) one.alone.close();
    },
  );
}

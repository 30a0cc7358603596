import { type Device, StreamScheduler } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject } from '../support/failures';
import { Rng } from '../support/rng';
import { config, inputFor, Twins } from './support';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const rng = new Rng(3);
const width = 16;

/** Pieces of 4 tokens, on a stream that was given so many before. */
async function withTwins(before: number, body: (twins: Twins, scheduler: StreamScheduler) => Promise<void>) {
  using scheduler = new StreamScheduler(device, { maxBatchTokens: 8 });
  const twins = new Twins(device, scheduler.createStream(config));
  if (before > 0) await twins.attend(before, rng);
  await body(twins, scheduler);
  expect(scheduler.stats()).toMatchObject({ queued: 0, running: 0, queuedBytes: 0, savedBytes: 0 });
  await twins.compare(rng);
}

const befores = [0, 3, 8, 21];

test.each(befores)(
  'a request that fails in a late piece leaves a stream of %i tokens as it was, and says where',
  (before) =>
    withTwins(before, async ({ stream }) => {
      for (const token of [0, 1, 4, 17, 39]) {
        const input = inputFor(stream, 40, rng);
        input.k[token * width + 5] = Number.NaN;
        await expectReject(() => stream.attend(input), {
          code: 'ERR_NON_FINITE',
          tensor: 'k',
          token,
          says: [`at token ${token} of the call`],
        });
        expect(stream.tokens).toBe(before);
      }
    }),
);

test.each(befores)('requests behind the one that fails go on from before it (%i tokens)', (before) =>
  withTwins(before, async (twins) => {
    const input = inputFor(twins.stream, 30, rng);
    input.v[29 * width] = Number.POSITIVE_INFINITY;
    const failing = twins.stream.attend(input);
    const next = [twins.attend(2, rng), twins.attend(23, rng)];
    await expectReject(() => failing, { code: 'ERR_NON_FINITE', tensor: 'v', token: 29 });
    await Promise.all(next);
    expect(twins.stream.tokens).toBe(before + 25);
  }),
);

test.each(befores)(
  'an abort at any moment leaves a stream of %i tokens as it was, or comes too late',
  (before) =>
    withTwins(before, async (twins, scheduler) => {
      const { stream } = twins;
      let [aborted, midway] = [0, 0];
      for (let turns = 0; turns < 12; turns++) {
        const stop = new AbortController();
        const input = inputFor(stream, 60, rng);
        const tokens = stream.tokens;
        const pending = stream.attend(input, { signal: stop.signal });
        for (let i = 0; i < turns; i++) await new Promise(setImmediate);
        if (scheduler.stats().running > 0) midway++;
        stop.abort('enough');
        const outcome = await pending.then(
          () => 'done',
          (error) => error,
        );
        if (outcome === 'done') {
          await twins.alone.attend(input);
          continue;
        }
        expect(outcome).toMatchObject({ name: 'AbortError', code: 'ABORT_ERR', cause: 'enough' });
        expect(stream.tokens).toBe(tokens);
        aborted++;
      }
      expect(aborted).toBeGreaterThan(0); // the first one, at least, which had no turn
      expect(midway).toBeGreaterThan(0);
    }),
);

test('a single piece that fails, or is aborted in the queue, saves nothing and changes nothing', () =>
  withTwins(5, async (twins, scheduler) => {
    const { stream } = twins;
    const input = inputFor(stream, 3, rng);
    input.q[2 * width] = Number.NaN;
    await expectReject(() => stream.attend(input), { code: 'ERR_NON_FINITE', tensor: 'q', token: 2 });
    const stop = new AbortController();
    const first = twins.attend(1, rng);
    const second = stream.attend(inputFor(stream, 1, rng), { signal: stop.signal });
    stop.abort();
    await expectReject(() => second, { code: 'ABORT_ERR' });
    await first;
    expect(scheduler.stats().swapsIn).toBe(0);
  }));

test('one signal may cut off many requests, in all places', async () => {
  using scheduler = new StreamScheduler(device, { maxBatchTokens: 8, maxQueue: 4 });
  const twins = [0, 1, 2, 3, 4, 5].map(() => new Twins(device, scheduler.createStream(config)));
  await Promise.all(twins.map((one) => one.attend(5, rng)));
  const stop = new AbortController();
  const { signal } = stop;
  const pending = Promise.allSettled(
    twins.map(({ stream }) => stream.attend(inputFor(stream, 200, rng), { signal })),
  );
  while (scheduler.stats().running < 2) await new Promise(setImmediate);
  stop.abort();
  for (const result of await pending)
    expect(result).toMatchObject({ status: 'rejected', reason: { code: 'ABORT_ERR' } });
  for (const one of twins) {
    expect(one.stream.tokens).toBe(5);
    await one.compare(rng);
  }
});

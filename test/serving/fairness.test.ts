import diagnostics from 'node:diagnostics_channel';
import { type AttendEvent, type ScheduledStream, StreamScheduler } from '../../lib';
import { onCuda, openTestDevice } from '../support/device';
import { Rng } from '../support/rng';
import { config, inputFor } from './support';

const rng = new Rng(5);
const CHANNEL = 'infini-stream:attend';

/** Runs the body while `seen` counts pieces that took effect, by their tokens. */
async function counting(body: (seen: number[]) => Promise<void>): Promise<void> {
  const seen: number[] = [];
  const listen = (event: unknown) => seen.push((event as AttendEvent).tokens);
  diagnostics.subscribe(CHANNEL, listen);
  try {
    await body(seen);
  } finally {
    diagnostics.unsubscribe(CHANNEL, listen);
  }
}

test('while a long prompt is at work, a token of someone else waits for a few of its pieces at most', () =>
  counting(async (seen) => {
    using device = openTestDevice({ threads: 1 }); // so that the order is the engine's, not the system's
    using scheduler = new StreamScheduler(device, { maxBatchTokens: 32 });
    const [prompt, chat] = [0, 1].map(() => scheduler.createStream(config));
    let over = false;
    const long = prompt.attend(inputFor(prompt, 16 * 100, rng)).then(() => {
      over = true;
    });
    while (seen.length < 2) await new Promise(setImmediate);
    let most = 0;
    for (let i = 0; i < 8; i++) {
      const before = seen.length;
      await chat.attend(inputFor(chat, 1, rng));
      most = Math.max(most, seen.length - before - 1);
    }
    expect(over).toBe(false);
    await long;
    expect(most).toBeLessThanOrEqual(6); // two at work, and those that were sent before this one's turn
    expect(seen.filter((tokens) => tokens === 16)).toHaveLength(100);
    expect(prompt.tokens).toBe(1600);
  }));

test('long prompts take turns piece by piece: a short one is not behind the whole of a longer one', () =>
  counting(async () => {
    using device = openTestDevice({ threads: 1 });
    using scheduler = new StreamScheduler(device, { maxBatchTokens: 32 });
    const streams = [100, 6, 20].map((pieces) => ({ pieces, stream: scheduler.createStream(config) }));
    const finished: number[] = [];
    await Promise.all(
      streams.map(({ pieces, stream }) =>
        stream.attend(inputFor(stream, 16 * pieces, rng)).then(() => finished.push(pieces)),
      ),
    );
    expect(finished).toEqual([6, 20, 100]);
  }));

test('each stream has one request in each round, however many it has asked for', async () => {
  using device = openTestDevice({ threads: 1 });
  using scheduler = new StreamScheduler(device, { maxBatchTokens: 1 }); // one token at a time: the order is seen
  const [greedy, ...others] = [0, 1, 2, 3].map(() => scheduler.createStream(config));
  const finished: string[] = [];
  const ask = (name: string, stream: ScheduledStream) =>
    stream.attend(inputFor(stream, 1, rng)).then(() => finished.push(name));
  const all = Array.from({ length: 10 }, () => ask('greedy', greedy));
  for (const [i, stream] of others.entries()) all.push(ask(`other ${i}`, stream), ask(`other ${i}`, stream));
  await Promise.all(all);
  expect(finished).toHaveLength(16);
  expect(finished.slice(0, 8)).toEqual(
    [...Array(2)].flatMap(() => ['greedy', 'other 0', 'other 1', 'other 2']),
  );
});

test('pieces end at segment borders, and at most maxBatchTokens of each kind are at work', () =>
  counting(async (seen) => {
    using device = openTestDevice();
    using scheduler = new StreamScheduler(device, { maxBatchTokens: 40 }); // pieces of 20, segments of 8
    const stream = scheduler.createStream(config);
    await stream.attend(inputFor(stream, 3, rng));
    await stream.attend(inputFor(stream, 60, rng));
    const other = scheduler.createStream({ ...config, segmentLength: 50 });
    await other.attend(inputFor(other, 90, rng));
    expect(seen).toEqual([3, 13, 16, 16, 15, 20, 20, 10, 20, 20]);
  }));

test('what is asked for in one turn of the event loop goes to a GPU in one step, and to the CPU at once', async () => {
  using device = openTestDevice();
  using scheduler = new StreamScheduler(device);
  const streams = Array.from({ length: 30 }, () => scheduler.createStream(config));
  const asked = streams.map((stream) => stream.attend(inputFor(stream, 1, rng)));
  expect(scheduler.stats().queued).toBe(onCuda ? 30 : 0);
  await Promise.all(asked);
  expect(scheduler.stats()).toMatchObject({ steps: onCuda ? 1 : 30, tokens: 30 });
});

import { type Device, type ScheduledStream, StreamScheduler } from '../../lib';
import { readLimits } from '../../lib/serving/options';
import { Queue } from '../../lib/serving/queue';
import type { Request } from '../../lib/serving/request';
import { onCuda, openTestDevice } from '../support/device';
import { expectReject } from '../support/failures';
import { Rng } from '../support/rng';
import { config, inputFor } from './support';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const rng = new Rng(1);
const token = (stream: ScheduledStream) => stream.attend(inputFor(stream, 1, rng));
/** Requests that do not wait where `maxBatchTokens` is 1: the CPU is given the first one at once. */
const atOnce = onCuda ? 0 : 1;
const BUSY = { code: 'ERR_BUSY', says: ['maxQueue'] };

test("'reject': the queue takes maxQueue requests and refuses the next one, until one has had its turn", async () => {
  using scheduler = new StreamScheduler(device, { maxBatchTokens: 1, maxQueue: 3, whenFull: 'reject' });
  const streams = [0, 1].map(() => scheduler.createStream(config));
  const pending = Array.from({ length: atOnce }, () => token(streams[0]));
  pending.push(token(streams[0]), token(streams[0]), token(streams[1])); // nothing has its turn in this one
  expect(scheduler.stats()).toMatchObject({ queued: 3, running: atOnce, outside: 0 });
  await expectReject(() => token(streams[1]), BUSY);
  await Promise.all(pending);
  await token(streams[1]);
  expect(streams.map(({ tokens }) => tokens)).toEqual([2 + atOnce, 2]);
  expect(scheduler.stats()).toMatchObject({ queued: 0, running: 0, queuedBytes: 0, tokens: 4 + atOnce });
});

test("'wait': one request of each stream waits outside the full queue, and all have their turn in call order", async () => {
  using scheduler = new StreamScheduler(device, { maxBatchTokens: 1, maxQueue: 2 });
  const streams = [0, 1, 2, 3].map(() => scheduler.createStream(config));
  const settled: string[] = [];
  const ask = (name: string, stream: ScheduledStream) => token(stream).then(() => settled.push(name));
  const all = Array.from({ length: atOnce }, () => ask('first', streams[0]));
  all.push(
    ask('a1', streams[0]),
    ask('a2', streams[0]),
    ask('a3', streams[0]),
    ask('b', streams[1]),
    ask('c', streams[2]),
    ask('d', streams[3]),
  );
  expect(scheduler.stats()).toMatchObject({ queued: 2, outside: 4 });
  await expectReject(() => token(streams[0]), { code: 'ERR_BUSY', says: ['outside'] });
  await Promise.all(all);
  expect(settled.filter((name) => name.startsWith('a'))).toEqual(['a1', 'a2', 'a3']);
  expect([...settled].sort().slice(0, 6)).toEqual(['a1', 'a2', 'a3', 'b', 'c', 'd']);
  expect(streams.map(({ tokens }) => tokens)).toEqual([3 + atOnce, 1, 1, 1]);
  expect(scheduler.stats()).toMatchObject({ queued: 0, outside: 0, queuedBytes: 0 });
});

test('a request outside the queue can be aborted, and goes with its stream', async () => {
  using scheduler = new StreamScheduler(device, { maxBatchTokens: 1, maxQueue: 1 });
  const streams = [0, 1, 2, 3].map(() => scheduler.createStream(config));
  const queued = Array.from({ length: atOnce + 1 }, () => token(streams[0]));
  const stop = new AbortController();
  const aborted = streams[1].attend(inputFor(streams[1], 1, rng), { signal: stop.signal });
  const closed = token(streams[2]);
  const last = token(streams[3]);
  stop.abort();
  streams[2].close();
  await expectReject(() => aborted, { code: 'ABORT_ERR' });
  await expectReject(() => closed, { code: 'ERR_CLOSED' });
  await Promise.all([...queued, last]);
  expect([streams[0], streams[1], streams[3]].map(({ tokens }) => tokens)).toEqual([1 + atOnce, 0, 1]);
  await token(streams[1]);
  expect(scheduler.stats()).toMatchObject({ queued: 0, outside: 0, queuedBytes: 0, running: 0 });
});

test('the bytes of inputs are bounded too, those at work included', async () => {
  const bytes = 3 * 16 * 4; // of one token's q, k and v
  using scheduler = new StreamScheduler(device, { maxQueueBytes: 5 * bytes });
  const stream = scheduler.createStream(config);
  const first = stream.attend(inputFor(stream, 4, rng));
  expect(scheduler.stats().queuedBytes).toBe(4 * bytes);
  await expectReject(() => stream.attend(inputFor(stream, 2, rng)), {
    code: 'ERR_BUSY',
    says: ['maxQueueBytes', String(5 * bytes), String(4 * bytes), String(2 * bytes)],
  });
  const second = token(stream);
  await expectReject(() => token(stream), { code: 'ERR_BUSY' });
  await Promise.all([first, second]);
  expect(scheduler.stats().queuedBytes).toBe(0);
  expect(stream.tokens).toBe(5);
});

test('drain resolves when no request is left, at once when there is none', async () => {
  const scheduler = new StreamScheduler(device, { maxBatchTokens: 1, maxQueue: 1 });
  await scheduler.drain();
  const streams = Array.from({ length: 3 + atOnce }, () => scheduler.createStream(config));
  let settled = 0;
  for (const stream of streams) token(stream).then(() => settled++);
  expect(scheduler.stats()).toMatchObject({ queued: 1, outside: 2 });
  await scheduler.drain();
  expect(settled).toBe(streams.length);
  for (const stream of streams) token(stream).then(() => settled++);
  await scheduler[Symbol.asyncDispose]();
  expect([settled, scheduler.closed]).toEqual([2 * streams.length, true]);
});

test('each request that has its turn, or leaves before it, lets in one from outside', () => {
  const admitted: number[] = [];
  const queue = new Queue({ ...readLimits({ maxQueue: 2 }) }, (request) => admitted.push(request.bytes));
  const requests = [1, 2, 3, 4, 5].map((bytes) => {
    const request = { bytes, member: { outside: undefined } } as unknown as Request;
    queue.check(bytes, request.member);
    queue.enter(request);
    return request;
  });
  const seen = [[...admitted]];
  for (const i of [0, 3, 1]) {
    queue.left(requests[i]);
    seen.push([...admitted]);
  }
  expect(seen).toEqual([
    [1, 2],
    [1, 2, 3],
    [1, 2, 3],
    [1, 2, 3, 5],
  ]);
  expect([queue.waiting, queue.outside.size, queue.bytes]).toEqual([2, 0, 15]);
});

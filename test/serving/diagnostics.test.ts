import diagnostics from 'node:diagnostics_channel';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type Device, loadModel, StreamScheduler } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject } from '../support/failures';
import { Rng } from '../support/rng';
import { writeTinyModel } from '../support/tiny-model';
import { bytesOfStream, config, inputFor } from './support';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const rng = new Rng(8);
const names = ['attend', 'absorb', 'swap', 'error'] as const;

type Seen = Record<(typeof names)[number], Record<string, unknown>[]>;

/** What is published while the body runs. */
async function listening(body: (seen: Seen) => Promise<void>): Promise<Seen> {
  const seen: Seen = { attend: [], absorb: [], swap: [], error: [] };
  const ends = names.map((name) => {
    const listen = (event: unknown) => seen[name].push(event as Record<string, unknown>);
    diagnostics.subscribe(`infini-stream:${name}`, listen);
    return () => diagnostics.unsubscribe(`infini-stream:${name}`, listen);
  });
  try {
    await body(seen);
    await new Promise(setImmediate);
  } finally {
    for (const end of ends) end();
  }
  return seen;
}

const time = expect.any(Number);
const id = () => device.info.id;

test('every way to append tokens is told of, with the segments that were filled', async () => {
  const streams = [0, 1].map(() => device.createStream(config)); // segments of 8
  const [one, two] = streams;
  const seen = await listening(async () => {
    await one.attend(inputFor(one, 7, rng));
    one.attendSync(inputFor(one, 10, rng));
    await device.attendBatch([
      { stream: one, ...inputFor(one, 3, rng) },
      { stream: two, ...inputFor(two, 7, rng) },
    ]);
    const batch = device.createBatch(streams);
    const both = inputFor(one, 2, rng);
    await batch.step(both); // one has 21 tokens, two has 8
    batch.stepSync(both);
    one.retrieveSync({ q: both.q });
    await one.retrieve({ q: both.q });
  });
  const device_ = id();
  expect(seen.attend).toEqual(
    [7, 10, 3, 7, 2, 2].map((tokens) => ({ device: device_, tokens, milliseconds: time })),
  );
  expect(seen.absorb).toEqual([2, 1].map((segments) => ({ device: device_, segments, milliseconds: time })));
  for (const { milliseconds } of [...seen.attend, ...seen.absorb]) expect(milliseconds).toBeGreaterThan(0);
  expect([seen.swap, seen.error]).toEqual([[], []]);
  for (const stream of streams) stream.close();
});

test('sessions tell of their chunks and tokens, once for all layers', async () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-'));
  await writeTinyModel(folder);
  using model = await loadModel(folder, { device });
  rmSync(folder, { recursive: true });
  const { segmentLength, layers } = model.config;
  expect(layers).toBeGreaterThan(1);
  const sessions = [0, 1].map(() => model.createSession());
  const seen = await listening(async () => {
    await sessions[0].feed(new Int32Array(segmentLength * 2 - 1));
    await sessions[0].generate({ maxTokens: 2 });
    await model.feedAll(sessions.map((session) => ({ session, input: new Int32Array(3) })));
  });
  const event = { device: id(), milliseconds: time };
  expect(seen.attend).toEqual([segmentLength * 2 - 1, 1, 1, 6].map((tokens) => ({ ...event, tokens })));
  expect(seen.absorb).toEqual([1, 1].map((segments) => ({ ...event, segments })));
  expect([seen.swap, seen.error]).toEqual([[], []]);
});

test('errors of sessions are told of once, but not those of the caller’s own functions', async () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-'));
  await writeTinyModel(folder);
  using model = await loadModel(folder, { device });
  rmSync(folder, { recursive: true });
  const session = model.createSession();
  const own = new Error('mine');
  const onProgress = () => {
    throw own;
  };
  const signal = AbortSignal.abort();
  const seen = await listening(async () => {
    await expectReject(() => session.feed([-1]), { code: 'ERR_OUT_OF_RANGE' });
    await expectReject(async () => await session.generate({ maxTokens: 1 }), { code: 'ERR_OUT_OF_RANGE' });
    expect(() => session.generate({ maxTokens: -1 })).toThrow();
    await expectReject(() => model.feedAll([{ session, input: [1] }], { signal }), { code: 'ABORT_ERR' });
    await expectReject(() => model.generateAll([session, session], { maxTokens: 1 }), { code: 'ERR_BUSY' });
    await expect(session.feed([1, 2], { onProgress })).rejects.toBe(own);
  });
  expect(seen.error.map(({ device, operation, code }) => [device, operation, code])).toEqual([
    [id(), 'feed', 'ERR_OUT_OF_RANGE'],
    [id(), 'generate', 'ERR_OUT_OF_RANGE'],
    [id(), 'generate', 'ERR_OUT_OF_RANGE'],
    [id(), 'feed', 'ABORT_ERR'],
    [id(), 'generate', 'ERR_BUSY'],
  ]);
});

test('errors are told of once, with what was asked and the code', async () => {
  const stream = device.createStream(config);
  const good = inputFor(stream, 2, rng);
  const bad = { ...good, v: good.v.slice().fill(Number.NaN) };
  const seen = await listening(async () => {
    await expectReject(() => stream.attend(bad), { code: 'ERR_NON_FINITE', tensor: 'v', token: 0 });
    expect(() => stream.attendSync(bad)).toThrow();
    expect(() => stream.attendSync({ ...good, q: good.q.subarray(1) })).toThrow();
    await expectReject(() => stream.retrieve({ q: good.q }, { signal: AbortSignal.abort() }), {
      code: 'ABORT_ERR',
    });
    const [result] = await device.attendBatch([{ stream, ...good, k: good.k.subarray(1) }]);
    expect(result.status).toBe('rejected');
    stream.close();
    await expectReject(() => stream.attend(good), { code: 'ERR_CLOSED' });
  });
  expect(seen.error.map(({ operation, code }) => [operation, code])).toEqual([
    ['attend', 'ERR_NON_FINITE'],
    ['attend', 'ERR_NON_FINITE'],
    ['attend', 'ERR_SHAPE'],
    ['retrieve', 'ABORT_ERR'],
    ['attend', 'ERR_SHAPE'],
    ['attend', 'ERR_CLOSED'],
  ]);
  for (const event of seen.error) {
    expect(event).toEqual({ device: id(), operation: event.operation, code: event.code, error: event.error });
    expect((event.error as { code: string }).code).toBe(event.code);
  }
  expect([seen.attend, seen.absorb, seen.swap]).toEqual([[], [], []]);
});

test('a scheduler tells of swaps, of pieces, and of requests it refuses', async () => {
  const bytes = bytesOfStream(device);
  const token = 2 * 16 * 4;
  const image = 2 * (8 * 8 * 4 + 8 * 8) + 4 * token; // 4 tokens in the open segment
  using scheduler = new StreamScheduler(device, { deviceBytes: bytes, maxQueue: 1, whenFull: 'reject' });
  const [a, b] = [0, 1].map(() => scheduler.createStream(config));
  const seen = await listening(async () => {
    await a.attend(inputFor(a, 12, rng));
    await b.attend(inputFor(b, 1, rng));
    await a.attend(inputFor(a, 1, rng));
    const away = b.attend(inputFor(b, 1, rng)); // waits for its stream to come back
    await expectReject(() => a.attend(inputFor(a, 1, rng)), { code: 'ERR_BUSY' });
    await away;
  });
  const swap = { device: id(), milliseconds: time };
  expect(seen.swap).toEqual([
    { ...swap, direction: 'out', tokens: 12, bytes: image },
    { ...swap, direction: 'out', tokens: 1, bytes: image - 3 * token },
    { ...swap, direction: 'in', tokens: 12, bytes: image },
    { ...swap, direction: 'out', tokens: 13, bytes: image + token },
    { ...swap, direction: 'in', tokens: 1, bytes: image - 3 * token },
  ]);
  expect(seen.attend.map(({ tokens }) => tokens)).toEqual([12, 1, 1, 1]);
  expect(seen.absorb.map(({ segments }) => segments)).toEqual([1]);
  expect(seen.error.map(({ operation, code }) => [operation, code])).toEqual([['attend', 'ERR_BUSY']]);
});

test('a subscriber may call, close and throw: calls that belong together are not torn apart', async () => {
  const [one, two] = [0, 1].map(() => device.createStream(config));
  const close = () => two.close();
  diagnostics.subscribe('infini-stream:error', close);
  try {
    const results = await device.attendBatch([
      { stream: one, ...inputFor(one, 1, rng), q: new Float32Array(5) },
      { stream: two, ...inputFor(two, 1, rng) },
    ]);
    const codes = results.map((result) => (result.status === 'rejected' ? result.reason.code : 'done'));
    expect(codes[0]).toBe('ERR_SHAPE');
    expect(['done', 'ERR_CLOSED']).toContain(codes[1]);
    expect(two.closed).toBe(true);
  } finally {
    diagnostics.unsubscribe('infini-stream:error', close);
  }
  expect((await one.attend(inputFor(one, 1, rng))).length).toBe(16);
});

test('device.stats() adds up the time in kernels', async () => {
  const stream = device.createStream({ heads: 4, headDim: 32, segmentLength: 32 });
  const times = [device.stats().kernelMilliseconds];
  await stream.attend(inputFor(stream, 64, rng));
  times.push(device.stats().kernelMilliseconds);
  stream.attendSync(inputFor(stream, 64, rng));
  times.push(device.stats().kernelMilliseconds);
  expect(times[0]).toBeGreaterThanOrEqual(0);
  expect(times[1]).toBeGreaterThan(times[0]);
  expect(times[2]).toBeGreaterThan(times[1]);
});

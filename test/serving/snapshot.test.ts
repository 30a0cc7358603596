import { type Device, type ScheduledStream, StreamScheduler } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject } from '../support/failures';
import { Rng } from '../support/rng';
import { bytesOfStream, config, expectSame, inputFor, Twins } from './support';

/** Streams of a scheduler that outlive it. */
let device: Device;
beforeEach(() => {
  device = openTestDevice();
});
afterEach(() => device.close());

const rng = new Rng(9);

async function streamOf(scheduler: StreamScheduler, tokens: number): Promise<ScheduledStream> {
  const stream = scheduler.createStream(config);
  if (tokens > 0) await stream.attend(inputFor(stream, tokens, rng));
  return stream;
}

test.each([0, 3, 8, 21])(
  'after %d tokens: restored by a scheduler or a device it goes on as before',
  async (tokens) => {
    using scheduler = new StreamScheduler(device);
    const stream = await streamOf(scheduler, tokens);
    const bytes = await stream.snapshot();
    const restored = await scheduler.restore(bytes);
    const alone = await device.restore(bytes);
    expect([restored.tokens, alone.tokens]).toEqual([tokens, tokens]);
    expect(restored.config).toEqual(stream.config);
    expect(Buffer.from(await restored.snapshot()).equals(bytes)).toBe(true);
    expect(Buffer.from(await alone.snapshot()).equals(bytes)).toBe(true);
    const next = inputFor(stream, 19, rng);
    const wanted = await stream.attend(next);
    expectSame(await restored.attend(next), wanted);
    expectSame(await alone.attend(next), wanted);
  },
);

test('a state in host memory, on the device and on its way are the same file', async () => {
  const byteLength = bytesOfStream(device);
  using scheduler = new StreamScheduler(device, { deviceBytes: byteLength, hostBytes: 2 * byteLength });
  const first = await streamOf(scheduler, 13);
  const bytes = Buffer.from(await first.snapshot());
  expect(scheduler.stats().streamsOnDevice).toBe(1);
  const second = scheduler.createStream(config);
  const pushing = second.attend(inputFor(second, 5, rng)); // the first one has to go
  const during: Promise<Uint8Array>[] = [];
  for (let i = 0; i < 20; i++) {
    during.push(first.snapshot());
    await new Promise(setImmediate);
  }
  await pushing;
  for (const one of await Promise.all(during)) expect(bytes.equals(one)).toBe(true);
  expect(scheduler.stats()).toMatchObject({ streamsOnDevice: 1, streamsOnHost: 1, swapsOut: 1 });
  expect(bytes.equals(await first.snapshot())).toBe(true);
  expect(scheduler.stats().swapsIn).toBe(0); // not brought back for that
  const restored = await scheduler.restore(bytes);
  expect(scheduler.stats()).toMatchObject({ streamsOnDevice: 1, streamsOnHost: 2 });
  const twins = new Twins(device, first);
  twins.alone.close();
  const next = inputFor(first, 9, rng);
  expectSame(await restored.attend(next), await first.attend(next));
});

test('a request that begins behind a snapshot is not in it', async () => {
  using scheduler = new StreamScheduler(device);
  const stream = await streamOf(scheduler, 5);
  const before = Buffer.from(await stream.snapshot());
  const taken = stream.snapshot();
  const request = stream.attend(inputFor(stream, 30, rng));
  await expectReject(() => stream.snapshot(), { code: 'ERR_BUSY', says: ['snapshot'] });
  expect(before.equals(await taken)).toBe(true);
  await request;
  expect(stream.tokens).toBe(35);
  expect(before.equals(await stream.snapshot())).toBe(false);
});

test('closed streams and schedulers, files that are none, budgets that are full', async () => {
  const byteLength = bytesOfStream(device);
  const before = device.stats().streams;
  using scheduler = new StreamScheduler(device, { deviceBytes: byteLength, hostBytes: byteLength });
  const stream = await streamOf(scheduler, 9);
  const bytes = await stream.snapshot();
  for (const spoiled of [bytes.subarray(1), bytes.slice(0, -1), new Uint8Array(0)]) {
    await expectReject(() => scheduler.restore(spoiled), { code: 'ERR_SNAPSHOT' });
  }
  await expectReject(() => scheduler.restore('bytes' as unknown as Uint8Array), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
  expect(scheduler.stats()).toMatchObject({ streams: 1, hostBytes: 0, deviceBytes: byteLength });
  expect(device.stats().streams).toBeLessThanOrEqual(before + 1);
  const other = await scheduler.restore(bytes);
  await expectReject(() => scheduler.restore(bytes), { code: 'ERR_OUT_OF_MEMORY', says: ['hostBytes'] });
  expect(scheduler.stats().streams).toBe(2);
  const closing = other.snapshot();
  other.close();
  await expectReject(() => closing, { code: 'ERR_CLOSED' });
  await expectReject(() => other.snapshot(), { code: 'ERR_CLOSED' });
  scheduler.close();
  await expectReject(() => scheduler.restore(bytes), { code: 'ERR_CLOSED' });
  expect(device.stats().streams).toBeLessThanOrEqual(before);
});

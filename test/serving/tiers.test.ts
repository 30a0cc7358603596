import { type Device, type ScheduledStream, StreamScheduler } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject, expectThrow } from '../support/failures';
import { Rng } from '../support/rng';
import { bytesOfStream, config, inputFor, Twins } from './support';

let device: Device;
let bytes: number;
beforeAll(() => {
  device = openTestDevice();
  bytes = bytesOfStream(device);
});
afterAll(() => device.close());

const rng = new Rng(4);
const token = (stream: ScheduledStream) => stream.attend(inputFor(stream, 1, rng));

test('a stream takes no memory before its first request, and gives it back when it closes', async () => {
  using scheduler = new StreamScheduler(device);
  const before = device.stats();
  const stream = scheduler.createStream(config);
  expect(scheduler.stats()).toMatchObject({ streams: 1, streamsOnDevice: 0, deviceBytes: 0 });
  expect(device.stats().streams).toBe(before.streams);
  await token(stream);
  expect(scheduler.stats()).toMatchObject({ streamsOnDevice: 1, deviceBytes: bytes, hostBytes: 0 });
  expect(device.stats().streamBytes).toBe(before.streamBytes + bytes);
  stream.close();
  expect(scheduler.stats()).toMatchObject({ streams: 0, streamsOnDevice: 0, deviceBytes: 0 });
  expect(device.stats().streams).toBe(before.streams);
});

test('who was used least recently leaves, and comes back as it was', async () => {
  using scheduler = new StreamScheduler(device, { deviceBytes: 2 * bytes });
  const [a, b, c] = [0, 1, 2].map(() => new Twins(device, scheduler.createStream(config)));
  await a.attend(13, rng);
  await b.attend(5, rng);
  await a.attend(1, rng);
  expect(scheduler.stats()).toMatchObject({ streamsOnDevice: 2, swapsOut: 0 });
  await c.attend(9, rng); // b leaves: z, M and 5 open tokens
  const image = 2 * (8 * 8 * 4 + 8 * 8 + 5 * 16 * 4);
  expect(scheduler.stats()).toMatchObject({
    streamsOnDevice: 2,
    streamsOnHost: 1,
    hostBytes: image,
    swapsOut: 1,
  });
  await a.attend(1, rng);
  expect(scheduler.stats()).toMatchObject({ swapsOut: 1, swapsIn: 0 }); // it had stayed
  await b.attend(20, rng); // c leaves
  expect(scheduler.stats()).toMatchObject({ swapsOut: 2, swapsIn: 1, deviceBytes: 2 * bytes });
  for (const one of [a, b, c]) await one.compare(rng);
});

test('an empty stream that was never given anything leaves without a copy', async () => {
  using scheduler = new StreamScheduler(device, { deviceBytes: bytes });
  const [a, b] = [0, 1].map(() => new Twins(device, scheduler.createStream(config)));
  const wrong = inputFor(a.stream, 1, rng);
  wrong.q[0] = Number.NaN;
  await expectReject(() => a.stream.attend(wrong), { code: 'ERR_NON_FINITE', tensor: 'q', token: 0 });
  await b.attend(3, rng);
  expect(scheduler.stats()).toMatchObject({ streamsOnDevice: 1, streamsOnHost: 0, swapsOut: 0 });
  for (const one of [a, b]) await one.compare(rng);
});

test('many streams on a device that holds one: each has its turns, with queues that never end', async () => {
  using scheduler = new StreamScheduler(device, { deviceBytes: bytes, maxBatchTokens: 16 });
  const twins = Array.from({ length: 5 }, () => new Twins(device, scheduler.createStream(config)));
  const finished: number[] = [];
  const all = twins.flatMap((one, i) =>
    [1, 9, 2, 30].map((tokens) => one.attend(tokens, rng).then(() => finished.push(i))),
  );
  await Promise.all(all);
  expect(finished).toHaveLength(20);
  // Whoever had a turn is behind those who had none: all are served before anyone's third.
  const third = finished.findIndex((i, at) => finished.slice(0, at).filter((j) => j === i).length === 2);
  expect(new Set(finished.slice(0, third)).size).toBe(5);
  const { swapsOut, swapsIn } = scheduler.stats();
  expect(swapsOut).toBeGreaterThanOrEqual(5);
  expect(swapsIn).toBeGreaterThanOrEqual(4);
  for (const one of twins) await one.compare(rng);
});

test('streams are promised what both budgets hold, and no more', async () => {
  using scheduler = new StreamScheduler(device, { deviceBytes: 2 * bytes, hostBytes: bytes });
  const streams = [0, 1, 2].map(() => scheduler.createStream(config));
  const refused = {
    code: 'ERR_OUT_OF_MEMORY',
    says: [`deviceBytes (${2 * bytes})`, `hostBytes (${bytes})`, String(3 * bytes)],
  };
  expectThrow(() => scheduler.createStream(config), refused);
  streams[0].close();
  streams[0] = scheduler.createStream(config);
  for (let round = 0; round < 3; round++) for (const stream of streams) await token(stream);
  expect(streams.map(({ tokens }) => tokens)).toEqual([3, 3, 3]);
  expectThrow(() => new StreamScheduler(device, { deviceBytes: bytes - 1 }).createStream(config), {
    code: 'ERR_OUT_OF_MEMORY',
  });
});

test('a request that finds neither budget free is refused alone, and served when there is room', async () => {
  // Two large streams fit on the device or one there and none in host memory; the small one makes the promise possible.
  const large = { ...config, segmentLength: 64 };
  const most = device.createStream(large).byteLength;
  using scheduler = new StreamScheduler(device, { deviceBytes: 1.5 * most, hostBytes: 0.5 * most });
  const [a, b] = [0, 1].map(() => new Twins(device, scheduler.createStream(large)));
  await a.attend(63, rng);
  const refused = b.stream.attend(inputFor(b.stream, 4, rng));
  await expectReject(() => refused, { code: 'ERR_OUT_OF_MEMORY', says: ['deviceBytes', 'hostBytes'] });
  expect(b.stream.tokens).toBe(0);
  await a.attend(2, rng); // it has absorbed its segment, and is small enough to leave
  await b.attend(4, rng);
  expect(scheduler.stats()).toMatchObject({ swapsOut: 1, streamsOnDevice: 1 });
  for (const one of [a, b]) await one.compare(rng);
});

test('a long prompt has the device in turns: others do not wait for its end', async () => {
  using scheduler = new StreamScheduler(device, { deviceBytes: bytes, maxBatchTokens: 8 });
  const [prompt, other, chat] = [0, 1, 2].map(() => new Twins(device, scheduler.createStream(config)));
  for (const one of [prompt, chat]) await one.attend(3, rng);
  const before = scheduler.stats().swapsOut;
  const finished: string[] = [];
  const asked = [
    prompt.attend(400, rng).then(() => finished.push('prompt')),
    other.attend(40, rng).then(() => finished.push('other')),
  ];
  for (let i = 0; i < 5; i++) asked.push(chat.attend(1, rng).then(() => finished.push('token')));
  await Promise.all(asked);
  expect(finished).toHaveLength(7);
  expect(finished.slice(-1)).toEqual(['prompt']);
  expect(scheduler.stats().swapsOut - before).toBeGreaterThan(10);
  for (const one of [prompt, other, chat]) await one.compare(rng);
});

test('a prompt that fails after it had to leave goes back to where it began', async () => {
  using scheduler = new StreamScheduler(device, { deviceBytes: bytes, maxBatchTokens: 8 });
  const [prompt, chat] = [0, 1].map(() => new Twins(device, scheduler.createStream(config)));
  for (const before of [0, 5, 21]) {
    if (before > 0) await prompt.attend(before - prompt.stream.tokens, rng);
    const input = inputFor(prompt.stream, 200, rng);
    input.k[199 * 16] = Number.NaN;
    const failing = prompt.stream.attend(input);
    let over = false;
    failing.catch(() => (over = true));
    const { swapsOut } = scheduler.stats();
    while (!over) await chat.attend(1, rng);
    await expectReject(() => failing, { code: 'ERR_NON_FINITE', tensor: 'k', token: 199 });
    expect(scheduler.stats().swapsOut).toBeGreaterThan(swapsOut + 2);
    expect(scheduler.stats().savedBytes).toBe(0);
    expect(prompt.stream.tokens).toBe(before);
  }
  for (const one of [prompt, chat]) await one.compare(rng);
});

test('a request that waits for room can be aborted or closed at any moment, and the others go on', async () => {
  using scheduler = new StreamScheduler(device, { deviceBytes: bytes, maxBatchTokens: 8 });
  const [a, b, d] = [0, 1, 2].map(() => new Twins(device, scheduler.createStream(config)));
  let [aborted, closed] = [0, 0];
  for (let turns = 0; turns < 10; turns++) {
    const c = scheduler.createStream(config);
    const others = [a.attend(60, rng), d.attend(2, rng)];
    const stop = new AbortController();
    const input = inputFor(b.stream, 3, rng);
    const cut = b.stream.attend(input, { signal: stop.signal }).then(
      () => b.alone.attend(input),
      (error) => {
        expect(error.code).toBe('ABORT_ERR');
        aborted++;
      },
    );
    const gone = token(c).catch((error) => {
      expect(error.code).toBe('ERR_CLOSED');
      closed++;
    });
    for (let i = 0; i < turns; i++) await new Promise(setImmediate);
    stop.abort();
    c.close();
    await Promise.all([...others, cut, gone]);
  }
  expect(aborted).toBeGreaterThan(0);
  expect(closed).toBeGreaterThan(0);
  for (const one of [a, b, d]) await one.compare(rng);
});

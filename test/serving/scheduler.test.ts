import { type Device, ScheduledStream, type StreamConfig, StreamScheduler } from '../../lib';
import { onCuda, openTestDevice } from '../support/device';
import { expectReject, expectThrow } from '../support/failures';
import { Rng } from '../support/rng';
import { config, expectSame, inputFor, Twins } from './support';

let device: Device;
beforeEach(() => {
  device = openTestDevice();
});
afterEach(() => device.close());

const rng = new Rng(2);

test('options are checked: whole numbers, known words, known keys', () => {
  const make = (options: unknown) => () => new StreamScheduler(device, options as object);
  for (const key of [
    'maxBatchTokens',
    'maxStreams',
    'maxQueue',
    'maxQueueBytes',
    'deviceBytes',
    'hostBytes',
  ]) {
    for (const value of ['5', null, 5n])
      expectThrow(make({ [key]: value }), { code: 'ERR_INVALID_ARG_TYPE', says: [key] });
    for (const value of [-1, 0.5, Number.NaN])
      expectThrow(make({ [key]: value }), { code: 'ERR_OUT_OF_RANGE', says: [key, String(value)] });
    expect(() => make({ [key]: undefined })()).not.toThrow();
  }
  for (const key of ['maxBatchTokens', 'maxStreams', 'maxQueue']) {
    expectThrow(make({ [key]: Number.POSITIVE_INFINITY }), { code: 'ERR_OUT_OF_RANGE' });
    expectThrow(make({ [key]: 0 }), { code: 'ERR_OUT_OF_RANGE' });
  }
  expect(() => make({ hostBytes: 0, deviceBytes: Number.POSITIVE_INFINITY })()).not.toThrow();
  expectThrow(make({ whenFull: 'drop' }), { code: 'ERR_OUT_OF_RANGE', says: ["'wait'", "'reject'"] });
  expectThrow(make({ whenFull: 1 }), { code: 'ERR_INVALID_ARG_TYPE' });
  expectThrow(make({ maxqueue: 1 }), { code: 'ERR_INVALID_ARG_TYPE', says: ["'maxqueue'"] });
  expectThrow(make(5), { code: 'ERR_INVALID_ARG_TYPE' });
  for (const other of [undefined, {}, 'cpu', Object.create(device)]) {
    expectThrow(() => new StreamScheduler(other as Device), {
      code: 'ERR_INVALID_ARG_TYPE',
      says: ['Device'],
    });
  }
  device.close();
  expectThrow(make({}), { code: 'ERR_CLOSED' });
});

test('streams are made by schedulers alone, and methods work on their own classes alone', async () => {
  const Constructor = ScheduledStream as unknown as new (...args: unknown[]) => unknown;
  expectThrow(() => new Constructor(Symbol('x'), {}), {
    code: 'ERR_INVALID_ARG_TYPE',
    says: [/createStream/],
  });
  using scheduler = new StreamScheduler(device);
  const stream = scheduler.createStream(config);
  const objects: [object, object][] = [
    [StreamScheduler.prototype, stream],
    [ScheduledStream.prototype, scheduler],
  ];
  let seen = 0;
  for (const [prototype, other] of objects) {
    for (const name of Reflect.ownKeys(prototype)) {
      if (name === 'constructor') continue;
      const { get, value } = Object.getOwnPropertyDescriptor(prototype, name) as PropertyDescriptor;
      const call = () => (get ?? value).call(other, {});
      const wrong = { code: 'ERR_INVALID_ARG_TYPE', says: ['receiver'] };
      if (/^(attend|retrieve|drain|snapshot|restore)$|asyncDispose/.test(String(name)))
        await expectReject(call, wrong);
      else expectThrow(call, wrong);
      seen++;
    }
  }
  expect(seen).toBe(18);
});

test('a configuration is checked when the stream is made; maxStreams are open at once', () => {
  using scheduler = new StreamScheduler(device, { maxStreams: 2 });
  expectThrow(() => scheduler.createStream({ heads: 0, headDim: 4 }), { code: 'ERR_OUT_OF_RANGE' });
  expectThrow(() => scheduler.createStream({ heads: 1 } as StreamConfig), { code: 'ERR_INVALID_ARG_TYPE' });
  expectThrow(() => scheduler.createStream({ heads: 2, headDim: 4, gate: [1] }), { code: 'ERR_SHAPE' });
  const first = scheduler.createStream(config);
  scheduler.createStream(config);
  expectThrow(() => scheduler.createStream(config), { code: 'ERR_BUSY', says: ['maxStreams', '2'] });
  first.close();
  const third = scheduler.createStream({ ...config, gate: [1, 2] });
  const alone = device.createStream({ ...config, gate: [1, 2] });
  expect(third.config).toEqual(alone.config);
  expect(Object.isFrozen(third.config) && Object.isFrozen(third.config.gate)).toBe(true);
  expect(third.byteLength).toBe(alone.byteLength);
});

test('arrays are the caller’s again at once, and requests of a stream are in order', async () => {
  using scheduler = new StreamScheduler(device, { maxBatchTokens: 8 });
  const stream = scheduler.createStream(config);
  const twin = new StreamScheduler(device).createStream(config);
  const settled: number[] = [];
  const results: Promise<unknown>[] = [];
  for (const [i, tokens] of [3, 30, 1, 50, 2].entries()) {
    const input = inputFor(stream, tokens, rng);
    const wanted = twin.attend(input);
    const found = stream.attend(input);
    for (const array of Object.values(input)) array.fill(Number.NaN);
    results.push(
      Promise.all([found, wanted]).then(([one, other]) => {
        settled.push(i);
        expect(one.every(Number.isFinite)).toBe(true);
        expect(one.length).toBe(other.length);
      }),
    );
  }
  await Promise.all(results);
  expect(settled).toEqual([0, 1, 2, 3, 4]);
  expect([stream.tokens, twin.tokens]).toEqual([86, 86]);
});

test('what is kept of a request that waits is given back, however it ends', async () => {
  using scheduler = new StreamScheduler(device, { maxBatchTokens: 8 });
  const streams = [0, 1, 2].map(() => scheduler.createStream(config));
  const stop = new AbortController();
  const { signal } = stop;
  const settled = Promise.allSettled(
    streams.flatMap((stream) => {
      const broken = inputFor(stream, 30, rng);
      broken.k[29 * 16] = Number.NaN;
      const aborted = stream.attend(inputFor(stream, 30, rng), { signal });
      return [stream.attend(inputFor(stream, 30, rng)), stream.attend(broken), aborted];
    }),
  );
  if (!onCuda) expect(device.stats().stagingBytes).toBe(9 * 30 * 3 * 16 * 4); // there each is copied again, in time
  stop.abort();
  streams[2].close();
  await settled;
  await scheduler.drain();
  while (device.stats().stagingBytes > 0) await new Promise(setImmediate); // a thread lets go of its call a little later
  for (const stream of streams.slice(0, 2)) expect(stream.tokens).toBe(30);
});

test('transfer takes the memory of the arrays; what cannot be taken is copied', async () => {
  using scheduler = new StreamScheduler(device, { maxBatchTokens: 8 });
  const { stream, alone } = new Twins(device, scheduler.createStream(config));
  const input = inputFor(stream, 21, rng);
  const all = new Float32Array(3 * input.q.length);
  const part = (i: number, array: ArrayLike<number>) => {
    all.set(array, i * input.q.length);
    return all.subarray(i * input.q.length, (i + 1) * input.q.length);
  };
  const views = { q: part(0, input.q), k: part(1, input.k), v: part(2, input.v) };
  const shared = new Float32Array(new SharedArrayBuffer(4 * input.k.length));
  shared.set(input.k);
  const own = { q: input.q.slice(), k: shared, v: input.v.slice() };
  const buffer = new Float32Array(device.hostBuffer(4 * input.q.length));
  buffer.set(input.q);
  const transfer = true;
  const found = [
    stream.attend(views, { transfer }),
    stream.attend(own, { transfer }),
    stream.retrieve({ q: buffer }, { transfer }),
  ];
  expect([views.q, views.k, views.v, all].map(({ length }) => length)).toEqual([0, 0, 0, 0]);
  const length = input.q.length;
  expect([own.q, own.k, own.v, buffer].map((array) => array.length)).toEqual([
    length,
    length,
    length,
    length,
  ]);
  const wanted = [alone.attend(input), alone.attend(input), alone.retrieve({ q: input.q })];
  for (const [i, one] of found.entries()) expectSame(await one, await wanted[i]);
  for (const wrong of [1, null, 'yes'])
    await expectReject(() => stream.attend(input, { transfer: wrong as never }), {
      code: 'ERR_INVALID_ARG_TYPE',
    });
  await expectReject(() => stream.attend({ ...input, v: input.v.subarray(1) }, { transfer }), {
    code: 'ERR_SHAPE',
  });
  expect(input.q.length).toBe(length);
});

test('wrong arguments and device tensors are refused, and change nothing', async () => {
  using scheduler = new StreamScheduler(device);
  const twins = new Twins(device, scheduler.createStream(config));
  await twins.attend(11, rng);
  const { stream } = twins;
  const { q, k, v } = inputFor(stream, 2, rng);
  const tensor = device.tensor([2, 2, 8], 'float32');
  const attend = (input: unknown, options?: unknown) => () => stream.attend(input as never, options as never);
  await expectReject(attend({ q, k }), { code: 'ERR_INVALID_ARG_TYPE' });
  await expectReject(attend({ q, k, v, w: v }), { code: 'ERR_INVALID_ARG_TYPE', says: ["'w'"] });
  await expectReject(attend({ q, k, v: tensor }), { code: 'ERR_INVALID_ARG_TYPE', says: ['input.v'] });
  await expectReject(attend({ q, k, v: new Uint16Array(32) }), { code: 'ERR_DTYPE' });
  await expectReject(attend({ q, k, v: v.subarray(1) }), { code: 'ERR_SHAPE' });
  await expectReject(attend({ q, k, v }, { out: q }), { code: 'ERR_INVALID_ARG_TYPE', says: ["'out'"] });
  await expectReject(attend({ q, k, v }, { signal: {} }), { code: 'ERR_INVALID_ARG_TYPE' });
  const signal = AbortSignal.abort('early');
  await expectReject(attend({ q, k, v }, { signal }), { code: 'ABORT_ERR' });
  await expectReject(() => stream.retrieve({ q: q.subarray(1) }), { code: 'ERR_SHAPE' });
  expect(scheduler.stats()).toMatchObject({ queued: 0, running: 0, queuedBytes: 0 });
  await twins.compare(rng);
});

test('retrieval is in order with what was attended to before it, in pieces too', async () => {
  using scheduler = new StreamScheduler(device, { maxBatchTokens: 6 });
  const { stream, alone } = new Twins(device, scheduler.createStream(config));
  const input = inputFor(stream, 40, rng);
  const [, found] = await Promise.all([stream.attend(input), stream.retrieve({ q: input.q })]);
  await alone.attend(input);
  const wanted = await alone.retrieve({ q: input.q });
  expect(found.length).toBe(wanted.length);
  for (const [i, x] of wanted.entries()) expect(found[i]).toBeCloseTo(x, 5);
  expect(wanted.some((x) => x !== 0)).toBe(true);
});

test('closing a stream refuses its requests, wherever they are, and no others', async () => {
  using scheduler = new StreamScheduler(device, { maxBatchTokens: 8, maxQueue: 3 });
  const [stream, other] = [0, 1].map(() => scheduler.createStream(config));
  const ask = (one: ScheduledStream, tokens: number) => one.attend(inputFor(one, tokens, rng));
  const long = ask(stream, 400);
  while (scheduler.stats().running === 0) await new Promise(setImmediate);
  const requests = [long, ask(stream, 1), ask(stream, 1)];
  const kept = ask(other, 5);
  requests.push(ask(stream, 1)); // outside
  expect(scheduler.stats().outside).toBe(1);
  stream.close();
  stream.close();
  for (const request of requests) await expectReject(() => request, { code: 'ERR_CLOSED' });
  await expectReject(() => ask(stream, 1), { code: 'ERR_CLOSED' });
  expect((await kept).length).toBe(5 * 16);
  expect([stream.closed, other.closed]).toEqual([true, false]);
  expect(scheduler.stats()).toMatchObject({ streams: 1, queued: 0, running: 0, outside: 0, savedBytes: 0 });
});

test('closing the scheduler, or the device, refuses everything; the device goes on without the scheduler', async () => {
  for (const close of ['scheduler', 'device'] as const) {
    const own = openTestDevice();
    const before = own.stats();
    const scheduler = new StreamScheduler(own, { maxBatchTokens: 8 });
    const streams = [0, 1, 2].map(() => scheduler.createStream(config));
    await streams[2].attend(inputFor(streams[2], 3, rng));
    const requests = streams.map((one) => one.attend(inputFor(one, 100, rng)));
    const results = Promise.allSettled(requests);
    if (close === 'scheduler') scheduler.close();
    else own.close();
    for (const result of await results)
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'ERR_CLOSED' } });
    expect([scheduler.closed, ...streams.map(({ closed }) => closed)]).toEqual([true, true, true, true]);
    expectThrow(() => scheduler.createStream(config), { code: 'ERR_CLOSED', says: ['scheduler'] });
    await scheduler.drain();
    expect(scheduler.stats()).toMatchObject({ streams: 0, streamsOnDevice: 0, deviceBytes: 0, hostBytes: 0 });
    expect(device.stats().streams).toBe(before.streams);
    own.close();
  }
});

import { ReadableStream } from 'node:stream/web';
import { type Device, StreamScheduler, type Tensor } from '../../lib';
import { makeTransform } from '../../lib/transform';
import { openTestDevice } from '../support/device';
import { expectReject } from '../support/failures';
import { Rng } from '../support/rng';
import { config, expectSame, inputFor } from './support';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const rng = new Rng(6);
const token = { q: new Float32Array(1), k: new Float32Array(1), v: new Float32Array(1) };
const turns = async (count: number) => {
  for (let i = 0; i < count; i++) await new Promise(setImmediate);
};

const subjects = {
  'a stream': () => device.createStream(config),
  'a scheduled stream': () => new StreamScheduler(device).createStream(config),
};

describe.each(Object.entries(subjects))('transform of %s', (_, make) => {
  test('outputs come in order, as those of attend, through pipeThrough', async () => {
    const [stream, alone] = [make(), device.createStream(config)];
    const inputs = [1, 5, 20, 3].map((tokens) => inputFor(alone, tokens, rng));
    const outputs: Tensor[] = [];
    for await (const output of ReadableStream.from(inputs).pipeThrough(stream.transform()))
      outputs.push(output);
    expect(outputs).toHaveLength(4);
    for (const [i, output] of outputs.entries()) expectSame(output, await alone.attend(inputs[i]));
    expect([stream.tokens, stream.closed]).toEqual([29, false]);
  });

  test('an error of a call errors both ends, typed, and the stream is open and as it was', async () => {
    const stream = make();
    const { readable, writable } = stream.transform();
    const writer = writable.getWriter();
    const reader = readable.getReader();
    const good = inputFor(stream as never, 2, rng);
    const bad = { ...good, k: good.k.slice() };
    bad.k[17] = Number.NaN;
    const wrong = { code: 'ERR_NON_FINITE', tensor: 'k', token: 1 };
    await Promise.all([writer.write(good), reader.read()]);
    const reading = reader.read();
    const closed = Promise.allSettled([reader.closed, writer.closed]);
    await expectReject(async_(writer.write(bad as never)), wrong);
    await expectReject(async_(reading), wrong);
    await expectReject(async_(writer.write(good)), wrong);
    for (const result of await closed) expect(result).toMatchObject({ reason: { code: 'ERR_NON_FINITE' } });
    expect([stream.tokens, stream.closed]).toEqual([2, false]);
    await stream.attend(good);
  });

  test('closing the writable ends the readable after what is pending', async () => {
    const stream = make();
    const { readable, writable } = stream.transform();
    const writer = writable.getWriter();
    writer.write(inputFor(stream as never, 4, rng));
    const closed = writer.close();
    const reader = readable.getReader();
    expect((await reader.read()).value).toHaveLength(4 * 16);
    expect(await reader.read()).toEqual({ value: undefined, done: true });
    await closed;
  });
});

/** For expectReject, which wants a promise of this realm. */
const async_ = (promise: Promise<unknown>) => () =>
  new Promise<unknown>((resolve, reject) => {
    promise.then(resolve, reject);
  });

describe('a transform and its calls', () => {
  test('one output waits for the reader; the next call begins when it is taken', async () => {
    let calls = 0;
    const { readable, writable } = makeTransform(async () => Float32Array.of(calls++));
    const writer = writable.getWriter();
    const written: number[] = [];
    for (let i = 0; i < 5; i++) writer.write(token).then(() => written.push(i));
    await turns(5);
    expect([calls, written, writer.desiredSize]).toEqual([1, [0], -3]);
    const reader = readable.getReader();
    for (let i = 0; i < 5; i++) {
      expect((await reader.read()).value?.[0]).toBe(i);
      await turns(5);
      expect(calls).toBe(Math.min(5, i + 2));
    }
    expect(written).toEqual([0, 1, 2, 3, 4]);
  });

  test.each(['abort', 'cancel'])(
    '%s reaches the pending call at once, and the next ones are not made',
    async (way) => {
      const reasons: unknown[] = [];
      const { readable, writable } = makeTransform(
        (_, { signal }) =>
          new Promise((_resolve, reject) => {
            signal?.addEventListener('abort', () => {
              reasons.push(signal.reason);
              reject(new Error('aborted'));
            });
          }),
      );
      const writer = writable.getWriter();
      const writes = Promise.allSettled([writer.write(token), writer.write(token)]);
      const closed = writer.closed.catch((reason) => reason);
      await turns(2);
      if (way === 'abort') await writer.abort('enough');
      else await readable.cancel('enough');
      expect((await writes).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
      expect(reasons).toEqual(['enough']);
      expect(await closed).toBe('enough');
      if (way === 'abort') await expect(readable.getReader().read()).rejects.toBe('enough');
    },
  );

  test.each(['abort', 'cancel'])('%s while an output waits ends the transform', async (way) => {
    let calls = 0;
    const { readable, writable } = makeTransform(async () => Float32Array.of(calls++));
    const writer = writable.getWriter();
    const writes = Promise.allSettled([writer.write(token), writer.write(token)]);
    const closed = writer.closed.catch((reason) => reason);
    await turns(3);
    if (way === 'abort') await writer.abort('enough');
    else await readable.cancel('enough');
    expect((await writes).map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    expect([calls, await closed]).toEqual([1, 'enough']);
  });

  test('an abort cuts off a call of a real stream, which stays as it was', async () => {
    const scheduler = new StreamScheduler(device, { maxBatchTokens: 8 });
    const stream = scheduler.createStream(config);
    const { writable } = stream.transform();
    const writer = writable.getWriter();
    const write = writer.write(inputFor(stream, 500, rng)).catch((error) => error);
    const closed = writer.closed.catch((reason) => reason);
    while (scheduler.stats().running === 0) await turns(1);
    await writer.abort('enough');
    expect(await write).toMatchObject({ code: 'ABORT_ERR', cause: 'enough' });
    expect(await closed).toBe('enough');
    await scheduler.drain();
    expect([stream.tokens, stream.closed]).toEqual([0, false]);
    scheduler.close();
  });
});

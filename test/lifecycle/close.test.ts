import { openTestDevice } from '../support/device';
import { sizes } from '../support/sizes';
import {
  bulkFor,
  huge,
  hugeTokens,
  inputFor,
  large,
  milliseconds,
  outcome,
  small,
  withDevice,
} from './calls';

test(`close rejects pending calls with ERR_CLOSED within ${sizes.prompt} ms and frees the state`, () =>
  withDevice(async (device) => {
    const stream = device.createStream(huge);
    const bytes = stream.byteLength;
    const before = device.stats().streamBytes;
    const input = bulkFor(stream, hugeTokens);
    const calls = [stream.attend(input), stream.attend(input), stream.retrieve({ q: input.q })];
    await new Promise((resolve) => setTimeout(resolve, 10));
    const start = process.hrtime.bigint();
    stream.close();
    stream.close();
    expect(stream.closed).toBe(true);
    expect(await Promise.all(calls.map(outcome))).toEqual(['ERR_CLOSED', 'ERR_CLOSED', 'ERR_CLOSED']);
    expect(milliseconds(start)).toBeLessThan(sizes.prompt);
    // The thread that worked on it lets go of it a moment later.
    const freed = () => before - device.stats().streamBytes === bytes;
    while (!freed() && milliseconds(start) < 1000) await new Promise((resolve) => setImmediate(resolve));
    expect(before - device.stats().streamBytes).toBe(bytes);
  }));

test('every method of a closed stream fails with ERR_CLOSED; what it was can still be read', () =>
  withDevice(async (device) => {
    const stream = device.createStream(small);
    const input = inputFor(stream, 5);
    stream.attendSync(input);
    const bytes = stream.byteLength;
    stream[Symbol.dispose]();
    const closed = expect.objectContaining({ code: 'ERR_CLOSED' });
    expect(await outcome(stream.attend(input))).toBe('ERR_CLOSED');
    expect(await outcome(stream.retrieve({ q: input.q }))).toBe('ERR_CLOSED');
    expect(() => stream.attendSync(input)).toThrow(closed);
    expect(() => stream.retrieveSync({ q: input.q })).toThrow(closed);
    expect(() => stream.memory()).toThrow(closed);
    expect(() => stream.reset()).toThrow(closed);
    expect(() => stream.fork()).toThrow(closed);
    expect([stream.closed, stream.tokens, stream.segments, stream.byteLength]).toEqual([true, 5, 1, bytes]);
    expect(stream.config.heads).toBe(2);
  }));

test('closing a device closes its streams and forks, not those of another handle', async () => {
  const device = openTestDevice();
  const other = openTestDevice();
  const stream = device.createStream(large);
  const fork = device.createStream(small).fork();
  const theirs = other.createStream(small);
  const pending = stream.attend(bulkFor(stream, 2048));
  device.close();
  device.close();
  expect([stream.closed, fork.closed, theirs.closed]).toEqual([true, true, false]);
  expect(await outcome(pending)).toBe('ERR_CLOSED');
  expect(() => device.createStream(small)).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
  theirs.attendSync(inputFor(theirs, 1));
  expect(theirs.tokens).toBe(1);
  other[Symbol.dispose]();
});

test('`using` closes', () => {
  let seen: { closed: boolean };
  {
    using device = openTestDevice();
    using stream = device.createStream(small);
    seen = stream;
    expect(stream.closed).toBe(false);
  }
  expect(seen.closed).toBe(true);
});

test('100,000 streams made and closed leave nothing behind', () =>
  withDevice(async (device) => {
    const sanitized = process.env.INFINI_STREAM_SANITIZED !== undefined;
    const first = device.createStream(small);
    const input = inputFor(first, 5);
    first.close();
    const make = (count: number) => {
      for (let i = 0; i < count; i++) {
        const stream = device.createStream(small);
        if (i % 100 === 0) stream.attendSync(input);
        stream.close();
      }
    };
    make(20_000);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const before = device.stats(); // a thread may have held a stream of the test before for a moment
    const rss = process.memoryUsage.rss();
    for (let round = 0; round < 8; round++) {
      make(10_000);
      await new Promise((resolve) => setTimeout(resolve, 5)); // collected handles are freed between turns
    }
    const after = device.stats();
    expect(after.streams).toBe(before.streams);
    expect(after.streamBytes).toBe(before.streamBytes);
    expect(after.stagingBytes).toBe(0);
    // jest's own heap moves by some 20 MB.
    if (!sanitized) expect(process.memoryUsage.rss() - rss).toBeLessThan(32 * 2 ** 20);
  }));

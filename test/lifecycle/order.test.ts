import { emulated } from '../support/device';
import { stateOf } from '../support/state';
import { bytesOf } from '../support/tensors';
import { bulkFor, huge, hugeTokens, inputFor, large, outcome, small, withDevice } from './calls';

test('calls on one stream take effect in call order and settle in it', () =>
  withDevice(async (device) => {
    const stream = device.createStream(small);
    const alone = device.createStream(small);
    const inputs = Array.from({ length: 40 }, (_, i) => inputFor(stream, 1 + (i % 7), i));
    const settled: number[] = [];
    const outputs = await Promise.all(
      inputs.map((input, i) => stream.attend(input).finally(() => settled.push(i))),
    );
    expect(settled).toEqual(inputs.map((_, i) => i));
    for (const [i, input] of inputs.entries()) {
      expect(bytesOf(outputs[i]).equals(bytesOf(alone.attendSync(input)))).toBe(true);
    }
    expect(stateOf(stream)).toEqual(stateOf(alone));
  }));

test('short calls of many streams have their turns in call order: none is passed over', () =>
  withDevice(async (device) => {
    const streams = Array.from({ length: 200 }, () => device.createStream(small));
    const inputs = streams.map((stream, i) => inputFor(stream, 1, i));
    const settled: number[] = [];
    const busy = device.createStream(large);
    const front = busy.attend(bulkFor(busy, emulated ? 64 : 2048)); // so that the others are there before most begin
    await Promise.all(streams.map((stream, i) => stream.attend(inputs[i]).then(() => settled.push(i))));
    await front;
    // A thread that is interrupted may hold one back.
    const shifts = settled.map((i, at) => Math.abs(i - at)).sort((a, b) => a - b);
    expect(shifts[100]).toBeLessThan(10);
  }));

test('tokens counts the calls that have settled, not those queued behind', () =>
  withDevice(async (device) => {
    const stream = device.createStream(small);
    const first = stream.attend(inputFor(stream, 5));
    const second = stream.attend(inputFor(stream, 7));
    expect(stream.tokens).toBe(0);
    await first;
    expect(stream.tokens).toBe(5);
    expect(stream.segments).toBe(1);
    await second;
    expect(stream.tokens).toBe(12);
    expect(stream.segments).toBe(3);
  }));

test('a failed call does not cancel the calls behind it: they run on the state it left', () =>
  withDevice(async (device) => {
    const stream = device.createStream(small);
    const alone = device.createStream(small);
    const [a, bad, b] = [inputFor(stream, 6, 1), inputFor(stream, 6, 2), inputFor(stream, 6, 3)];
    bad.k[bad.k.length - 1] = Number.NaN;
    const calls = [stream.attend(a), stream.attend(bad), stream.attend(b), stream.retrieve({ q: a.q })];
    expect(await Promise.all(calls.map(outcome))).toEqual(['done', 'ERR_NON_FINITE', 'done', 'done']);
    alone.attendSync(a);
    alone.attendSync(b);
    expect(stateOf(stream)).toEqual(stateOf(alone));
    expect(bytesOf(await calls[3]).equals(bytesOf(alone.retrieveSync({ q: a.q })))).toBe(true);
  }));

test('while a call is pending the synchronous methods throw ERR_BUSY and change nothing', () =>
  withDevice(async (device) => {
    const stream = device.createStream(small);
    const input = inputFor(stream, 3);
    const out = new Float32Array(3 * 16).fill(7);
    const pending = stream.attend(input);
    const busy = expect.objectContaining({ code: 'ERR_BUSY' });
    expect(() => stream.attendSync(input, { out })).toThrow(busy);
    expect(() => stream.retrieveSync({ q: input.q }, { out })).toThrow(busy);
    expect(() => stream.memory()).toThrow(busy);
    expect(() => stream.reset()).toThrow(busy);
    expect(() => stream.fork()).toThrow(busy);
    expect(out.every((x) => x === 7)).toBe(true);
    await pending;
    expect(stream.tokens).toBe(3);
    expect(stream.attendSync(input, { out })).toBe(out);
    expect(stream.tokens).toBe(6);
  }));

test("inputs are copied before attend returns, and are the caller's again at once", () =>
  withDevice(async (device) => {
    const stream = device.createStream(small);
    const alone = device.createStream(small);
    const input = inputFor(stream, 9);
    const wanted = alone.attendSync(input);
    const transferred = { q: input.q.slice(), k: input.k.slice(), v: input.v.slice() };
    const overwritten = stream.attend(input);
    for (const tensor of [input.q, input.k, input.v]) tensor.fill(Number.NaN);
    expect(bytesOf(await overwritten).equals(bytesOf(wanted))).toBe(true);
    stream.reset();
    const pending = stream.attend(transferred);
    structuredClone(transferred, {
      transfer: [transferred.q.buffer, transferred.k.buffer, transferred.v.buffer] as ArrayBuffer[],
    });
    expect(transferred.q.length).toBe(0);
    expect(bytesOf(await pending).equals(bytesOf(wanted))).toBe(true);
  }));

test('the event loop goes on while a long call runs', () =>
  withDevice(async (device) => {
    const stream = device.createStream(large);
    const pending = stream.attend(bulkFor(stream, 2048));
    let turns = 0;
    let running = true;
    pending.finally(() => {
      running = false;
    });
    while (running) {
      await new Promise((resolve) => setImmediate(resolve));
      turns++;
    }
    await pending;
    expect(turns).toBeGreaterThan(20);
  }));

test('a long call on one stream does not hold up a short one on another', () =>
  withDevice(async (device) => {
    const long = device.createStream(huge);
    const short = device.createStream(small);
    const order: string[] = [];
    const slow = long.attend(bulkFor(long, hugeTokens)).then(() => order.push('long'));
    const quick = short.attend(inputFor(short, 3)).then(() => order.push('short'));
    await Promise.all([slow, quick]);
    expect(order).toEqual(['short', 'long']);
  }));

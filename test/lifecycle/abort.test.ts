import { getEventListeners } from 'node:events';
import { seededTest } from '../support/seeded';
import { sizes } from '../support/sizes';
import { stateOf } from '../support/state';
import { bytesOf } from '../support/tensors';
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

test('a signal that has fired already: rejected, with the reason as cause, nothing changed', () =>
  withDevice(async (device) => {
    const stream = device.createStream(small);
    stream.attendSync(inputFor(stream, 6));
    const before = stateOf(stream);
    const reason = new Error('changed my mind');
    const error = await stream
      .attend(inputFor(stream, 6), { signal: AbortSignal.abort(reason) })
      .catch((e) => e);
    expect(error).toMatchObject({ name: 'AbortError', code: 'ABORT_ERR', cause: reason });
    expect(error).toBeInstanceOf(Error);
    expect(stateOf(stream)).toEqual(before);
  }));

test('shape errors are reported before an aborted signal, and the signal before values', () =>
  withDevice(async (device) => {
    const stream = device.createStream(small);
    const signal = AbortSignal.abort();
    const input = inputFor(stream, 2);
    expect(await outcome(stream.attend({ ...input, k: input.k.subarray(1) }, { signal }))).toBe('ERR_SHAPE');
    input.q[0] = Number.NaN;
    expect(await outcome(stream.attend(input, { signal }))).toBe('ABORT_ERR');
  }));

test(`aborting in mid-work settles within ${sizes.prompt} ms and leaves state and out untouched`, () =>
  withDevice(async (device) => {
    const stream = device.createStream(huge);
    const head = bulkFor(stream, 300);
    stream.attendSync(head);
    const before = Buffer.from(await stream.snapshot());
    const input = bulkFor(stream, hugeTokens);
    const out = new Float32Array(input.q.length).fill(3);
    for (const wait of [0, 5, 30]) {
      const controller = new AbortController();
      const pending = stream.attend(input, { out, signal: controller.signal });
      const queued = stream.retrieve({ q: head.q });
      await new Promise((resolve) => setTimeout(resolve, wait));
      const start = process.hrtime.bigint();
      controller.abort('enough');
      const error = await pending.catch((e) => e);
      expect(error).toMatchObject({ code: 'ABORT_ERR', cause: 'enough' });
      expect(milliseconds(start)).toBeLessThan(sizes.prompt);
      expect(out.every((x) => x === 3)).toBe(true);
      await queued; // not cancelled with it
    }
    expect(before.equals(await stream.snapshot())).toBe(true);
  }));

test('a queued call is aborted alone, before the one at work ends', () =>
  withDevice(async (device) => {
    const stream = device.createStream(huge);
    const controller = new AbortController();
    const order: string[] = [];
    const calls = [
      stream.attend(bulkFor(stream, hugeTokens)).then(() => order.push('first')),
      stream.attend(bulkFor(stream, 64), { signal: controller.signal }).catch(() => order.push('aborted')),
      stream.attend(bulkFor(stream, 32)).then(() => order.push('third')),
    ];
    controller.abort();
    await Promise.all(calls);
    expect(order).toEqual(['aborted', 'first', 'third']);
    expect(stream.tokens).toBe(hugeTokens + 32);
  }));

test('a signal that fires after the call has settled does nothing, and no listener stays behind', () =>
  withDevice(async (device) => {
    const stream = device.createStream(small);
    const controller = new AbortController();
    for (let i = 0; i < 20; i++) await stream.attend(inputFor(stream, 1), { signal: controller.signal });
    expect(getEventListeners(controller.signal, 'abort')).toEqual([]);
    controller.abort();
    expect(stream.tokens).toBe(20);
    expect(await outcome(stream.attend(inputFor(stream, 1)))).toBe('done');
  }));

seededTest('aborts at random moments: every call either counts whole or not at all', (rng) =>
  withDevice(async (device) => {
    const config = { heads: 2, headDim: 32, segmentLength: 64 };
    const stream = device.createStream(config);
    const alone = device.createStream(config);
    let aborted = 0;
    for (let round = 0; round < 30; round++) {
      const calls = Array.from({ length: 4 }, (_, i) => {
        const input = inputFor(stream, rng.int(1, 700), round * 10 + i);
        const controller = new AbortController();
        const result = stream.attend(input, { signal: controller.signal }).catch((e) => e);
        const moment = rng.pick(['never', 'at once', 'next turn', 'later']);
        if (moment === 'at once') controller.abort();
        if (moment === 'next turn') setImmediate(() => controller.abort());
        if (moment === 'later') setTimeout(() => controller.abort(), rng.uniform(0, 6));
        return { input, result };
      });
      for (const { input, result } of calls) {
        const output = await result;
        if (output instanceof Error) {
          expect(output).toMatchObject({ code: 'ABORT_ERR' });
          aborted++;
        } else {
          expect(bytesOf(output).equals(bytesOf(alone.attendSync(input)))).toBe(true);
        }
      }
      expect(stateOf(stream)).toEqual(stateOf(alone));
    }
    expect(aborted).toBeGreaterThan(0);
    expect(aborted).toBeLessThan(120);
  }),
);

test('many calls may share one signal: one listener, no warning, the reason for each', () =>
  withDevice(async (device) => {
    const stream = device.createStream(large);
    const controller = new AbortController();
    const { signal } = controller;
    // A user's own properties on the signal are not consulted.
    Object.defineProperty(signal, 'reason', { get: () => 'an override' });
    const calls = [bulkFor(stream, 1024), ...Array.from({ length: 30 }, () => bulkFor(stream, 4))].map(
      (input) => stream.attend(input, { signal }).catch((error) => error),
    );
    expect(getEventListeners(signal, 'abort')).toHaveLength(1);
    controller.abort('all of you');
    for (const error of await Promise.all(calls)) {
      expect(error).toMatchObject({ code: 'ABORT_ERR', cause: 'all of you' });
    }
    expect(stream.tokens).toBe(0);
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  }));

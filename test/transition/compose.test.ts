import { deserialize, serialize } from 'node:v8';
import { Worker } from 'node:worker_threads';
import { applyTransition, composeTransitions, type Device, type Transition } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectThrow } from '../support/failures';
import { dataOf, makeInput } from '../support/inputs';
import { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { stateOf } from '../support/state';
import { makeText, memoryError, RULES, record, transitionError, transitionsOf } from './text';

/** composeTransitions: order, grouping, neutral elements, and transitions that travel. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const shape = { heads: 2, headDim: 6, valueDim: 5, segmentLength: 4 };

describe.each(RULES)("rule '%s'", (rule) => {
  const config = { ...shape, rule };

  seededTest('grouping makes no difference beyond rounding', async (rng) => {
    const [, a, b, c] = await transitionsOf(device, makeText(device, config, [1, 2, 1, 3], rng));
    expect(a.A === null).toBe(rule === 'linear');
    const all = composeTransitions([a, b, c]);
    expect(all.tokens).toBe(24);
    for (const grouped of [
      composeTransitions([composeTransitions([a, b]), c]),
      composeTransitions([a, composeTransitions([b, c])]),
    ]) {
      expect(grouped.tokens).toBe(24);
      expect(grouped.before).toEqual(all.before);
      expect(transitionError(grouped, all)).toBeLessThan(3e-7);
    }
  });

  seededTest('the composition of two is the transition of both', async (rng) => {
    const text = makeText(device, config, [2, 2, 3], rng);
    const [a, b, c] = await transitionsOf(device, text);
    const { k, v } = dataOf(text.whole);
    const [keys, values] = [k.subarray(8 * 2 * 6), v.subarray(8 * 2 * 5)];
    const recorder = device.createRecorder(config, { normalizer: a.normalizer });
    await recorder.absorb({ k: keys, v: values });
    expect(transitionError(composeTransitions([b, c]), recorder.exportTransition())).toBeLessThan(1e-5);
    recorder.close();
  });

  seededTest('one transition is itself, and one of no tokens is neutral', async (rng) => {
    const [a, b] = await transitionsOf(device, makeText(device, config, [1, 2], rng));
    expect(composeTransitions([a])).toEqual(a);
    const nothing = device.createStream(config).exportTransition();
    expect(nothing.tokens).toBe(0);
    expect(transitionError(composeTransitions([nothing, a]), a)).toBe(0);
    using between = device.createRecorder(config, { normalizer: a.normalizer });
    const both = composeTransitions([a, b]);
    expect(transitionError(composeTransitions([a, between.exportTransition(), b]), both)).toBeLessThan(1e-7);
  });

  seededTest('gives arrays of its own, and leaves the given ones', async (rng) => {
    const [a, b] = await transitionsOf(device, makeText(device, config, [1, 2], rng));
    const copies = structuredClone([a, b]);
    for (const list of [[a], [a, b]]) {
      const made = composeTransitions(list);
      for (const array of [made.A, made.B, made.normalizer, made.before]) array?.fill(7);
      expect([a, b]).toEqual(copies);
    }
  });

  seededTest('a transition can be posted to a worker, and serialized', async (rng) => {
    const [, b] = await transitionsOf(device, makeText(device, config, [1, 2], rng));
    const posted = await echo(b);
    expect(transitionError(composeTransitions([posted]), b)).toBe(0);
    expect(transitionError(composeTransitions([deserialize(serialize(b))]), b)).toBe(0);
  });
});

function echo(transition: Transition): Promise<Transition> {
  const code =
    "const { parentPort } = require('node:worker_threads');" +
    "parentPort.once('message', (given) => parentPort.postMessage(given));";
  const worker = new Worker(code, { eval: true });
  return new Promise((resolve, reject) => {
    worker.once('message', resolve).once('error', reject);
    worker.postMessage(transition);
  });
}

seededTest(
  'the delta rule knows an order, and what was recorded after other tokens is refused',
  async (rng) => {
    const config = { ...shape, rule: 'delta' as const };
    const [a, b, c] = await transitionsOf(device, makeText(device, config, [2, 3, 2], rng));
    const elsewhere = { code: 'ERR_OUT_OF_RANGE', says: ['transitions[1]', 'another normalizer'] };
    for (const list of [
      [b, a],
      [a, c],
      [a, a],
      [b, b],
    ])
      expectThrow(() => composeTransitions(list), elsewhere);
    // And would be wrong: the same parts with a `before` that says what it must.
    const swapped = composeTransitions([
      { ...c, before: b.before },
      { ...b, before: (b.before as Float64Array).map((x, i) => x + c.normalizer[i]) },
    ]);
    expect(transitionError(swapped, composeTransitions([b, c]))).toBeGreaterThan(1e-2);

    const stream = device.createStream(config);
    const state = stateOf(stream);
    expectThrow(() => applyTransition(stream, b), { code: 'ERR_OUT_OF_RANGE', says: ['another normalizer'] });
    expect(stateOf(stream)).toEqual(state);
    const one = applyTransition(stream, a);
    expectThrow(() => applyTransition(one, a), { code: 'ERR_OUT_OF_RANGE' });
    expectThrow(() => applyTransition(one, c), { code: 'ERR_OUT_OF_RANGE' });
  },
);

seededTest('the linear rule knows none', async (rng) => {
  const config = { ...shape, rule: 'linear' as const };
  const [a, b, c] = await transitionsOf(device, makeText(device, config, [2, 3, 2], rng));
  expect(transitionError(composeTransitions([c, a, b]), composeTransitions([a, b, c]))).toBeLessThan(1e-7);
});

test('numbers beyond their range are refused', () => {
  const config = { heads: 1, headDim: 1, segmentLength: 1, rule: 'linear' as const };
  const huge: Transition = {
    kvHeads: 1,
    headDim: 1,
    valueDim: 1,
    segmentLength: 1,
    rule: 'linear',
    tokens: 1,
    A: null,
    B: Float32Array.of(3e38),
    normalizer: Float64Array.of(1),
    before: null,
  };
  expectThrow(() => composeTransitions([huge, huge]), { code: 'ERR_OUT_OF_RANGE', says: ['B'] });
  const many = { ...huge, tokens: 2 ** 52, B: Float32Array.of(1) };
  expectThrow(() => composeTransitions([many, many]), { code: 'ERR_OUT_OF_RANGE', says: ['tokens'] });
  const stream = applyTransition(device.createStream(config), huge);
  expectThrow(() => applyTransition(stream, huge), { code: 'ERR_OUT_OF_RANGE', says: ['matrix'] });
  const long = applyTransition(stream, { ...many, tokens: 2 ** 53 - 2 });
  expectThrow(() => applyTransition(long, { ...many, tokens: 2 }), {
    code: 'ERR_OUT_OF_RANGE',
    says: ['tokens'],
  });
  expect(stream.memory().matrix[0]).toBe(Math.fround(3e38));
});

test('a memory of one type takes the transition of another', async () => {
  const rng = new Rng(3);
  const config = { ...shape, rule: 'delta' as const, dtype: 'float16' as const };
  const part = makeInput({ ...config, kvHeads: 2 }, 8, rng);
  const transition = await record(device, config, part);
  const { dtype: _, ...plain } = config;
  const stream = applyTransition(device.createStream(plain), transition);
  const wanted = device.createStream(config);
  wanted.attendSync(dataOf(part));
  expect(memoryError(stream, wanted)).toBeLessThan(1e-6);
  expect(stream.config.dtype).toBe('float32');
});

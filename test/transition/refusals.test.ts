import {
  applyTransition,
  composeTransitions,
  type Device,
  type MemoryStream,
  type Transition,
} from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject, expectThrow } from '../support/failures';
import { dataOf, makeInput } from '../support/inputs';
import { Rng } from '../support/rng';
import { stateOf } from '../support/state';
import { record } from './text';

/** Arguments that are not what they must be: a typed error each, and nothing changed. */
let device: Device;
let stream: MemoryStream;
let good: Transition;
beforeAll(async () => {
  device = openTestDevice();
  stream = device.createStream(config);
  stream.attendSync(dataOf(makeInput(stream.config, 4, new Rng(1))));
  const { normalizer } = stream.memory();
  good = await record(device, config, makeInput(stream.config, 4, new Rng(2)), normalizer);
});
afterAll(() => device.close());

const config = { heads: 2, headDim: 3, valueDim: 2, segmentLength: 4, rule: 'delta' as const };
const TYPE = 'ERR_INVALID_ARG_TYPE';
const RANGE = 'ERR_OUT_OF_RANGE';
const SHAPE = 'ERR_SHAPE';

/** Both functions that take transitions refuse it. */
function expectNoTransition(value: unknown, code: string, ...says: string[]): void {
  const state = stateOf(stream);
  expectThrow(() => applyTransition(stream, value as Transition), { code, says });
  expect(stateOf(stream)).toEqual(state);
  expectThrow(() => composeTransitions([value as Transition, value as Transition]), { code, says });
}

const spoilt = <T extends Float32Array | Float64Array>(array: T, number: number): T => {
  const copy = array.slice() as T;
  copy[1] = number;
  return copy;
};

test('what is no transition', () => {
  for (const value of [undefined, null, 5, 'x', [], new Float32Array(3), () => good])
    expectNoTransition(value, TYPE);
  expectNoTransition({ ...good, more: 1 }, TYPE, "'more'");
  for (const key of Object.keys(good) as (keyof Transition)[]) {
    const { [key]: _, ...rest } = good;
    expectNoTransition(rest, TYPE, key);
    expectNoTransition({ ...good, [key]: {} }, TYPE, key);
    expectNoTransition({ ...good, [key]: undefined }, TYPE, key);
  }
});

test('numbers out of range', () => {
  for (const key of ['kvHeads', 'headDim', 'valueDim', 'segmentLength'] as const) {
    for (const value of [0, -1, 1.5, Number.NaN, 1e9])
      expectNoTransition({ ...good, [key]: value }, RANGE, key);
  }
  for (const tokens of [-4, 4.5, 2 ** 53, Number.NaN])
    expectNoTransition({ ...good, tokens }, RANGE, 'tokens');
  expectNoTransition({ ...good, tokens: 5 }, RANGE, '1 tokens');
  expectNoTransition({ ...good, rule: 'gamma' }, RANGE, 'rule');
  for (const key of ['A', 'B', 'normalizer', 'before'] as const) {
    const array = good[key] as Float32Array;
    for (const number of [Number.NaN, Number.POSITIVE_INFINITY])
      expectNoTransition({ ...good, [key]: spoilt(array, number) }, RANGE, `${key}[1]`);
  }
  for (const key of ['normalizer', 'before'] as const)
    expectNoTransition({ ...good, [key]: spoilt(good[key] as Float64Array, -1) }, RANGE, 'below 0');
});

test('arrays of another class or length', () => {
  for (const key of ['A', 'B', 'normalizer', 'before'] as const) {
    const array = good[key] as Float32Array;
    expectNoTransition({ ...good, [key]: Array.from(array) }, TYPE, key);
    expectNoTransition({ ...good, [key]: new Int32Array(array.length) }, TYPE, key);
    expectNoTransition({ ...good, [key]: array.slice(1) }, SHAPE, key);
    const detached = array.slice();
    structuredClone(detached, { transfer: [detached.buffer] });
    expectNoTransition({ ...good, [key]: detached }, SHAPE, key);
    const lying = Object.defineProperty(array.slice(1), 'length', { value: array.length });
    expectNoTransition({ ...good, [key]: lying }, SHAPE, key);
  }
});

test('what belongs to the other rule', () => {
  expectNoTransition({ ...good, A: null }, TYPE, 'A');
  expectNoTransition({ ...good, before: null }, TYPE, 'before');
  expectNoTransition({ ...good, rule: 'linear' }, TYPE, 'null');
  expectNoTransition({ ...good, rule: 'linear', A: null }, TYPE, 'before');
});

test('a stream that is not there, not free, at another place or of another shape', async () => {
  const apply = applyTransition as (stream: unknown, transition: Transition) => MemoryStream;
  for (const value of [undefined, {}, device, good, Object.create(stream)])
    expectThrow(() => apply(value, good), { code: TYPE, says: ['"stream"'] });
  const closed = stream.fork();
  closed.close();
  expectThrow(() => apply(closed, good), { code: 'ERR_CLOSED' });
  const fork = stream.fork();
  const call = fork.attend(dataOf(makeInput(stream.config, 1, new Rng(3))));
  expectThrow(() => apply(fork, good), { code: 'ERR_BUSY', says: ['applyTransition'] });
  await call;
  expectThrow(() => apply(fork, good), { code: RANGE, says: ['1 tokens'] });
  for (const change of [
    { headDim: 4 },
    { valueDim: 3 },
    { heads: 4 },
    { segmentLength: 2 },
    { rule: 'linear' as const },
  ]) {
    const other = device.createStream({ ...config, ...change });
    const key = Object.keys(change)[0] === 'heads' ? 'kvHeads' : Object.keys(change)[0];
    expectThrow(() => apply(other, good), { code: RANGE, says: [key] });
    const start = other.exportTransition();
    expectThrow(() => composeTransitions([start, good]), { code: RANGE, says: ['transitions[1]', key] });
  }
});

test('lists of transitions', () => {
  const compose = composeTransitions as (list: unknown) => Transition;
  for (const list of [undefined, good, { length: 1, 0: good }])
    expectThrow(() => compose(list), { code: TYPE });
  expectThrow(() => compose([]), { code: RANGE, says: ['1 to 4096'] });
  expectThrow(() => compose(Array(4097).fill(good)), { code: RANGE, says: ['1 to 4096'] });
  expectThrow(() => compose([good, null]), { code: TYPE, says: ['transitions[1]'] });
});

test('a transition is read once: what was checked is what is used', () => {
  const reads: Record<string, number> = {};
  const once = Object.defineProperties(
    {} as Transition,
    Object.fromEntries(
      (Object.keys(good) as (keyof Transition)[]).map((key) => [
        key,
        {
          enumerable: true,
          get: () => {
            reads[key] = (reads[key] ?? 0) + 1;
            return reads[key] === 1 ? good[key] : Number.NaN;
          },
        },
      ]),
    ),
  );
  expect(stateOf(applyTransition(stream, once))).toEqual(stateOf(applyTransition(stream, good)));
  expect(Object.values(reads)).toEqual(Object.keys(good).map(() => 1));
});

test('a getter that throws, closes the stream or writes to an array that was read', () => {
  const bomb = new Error('mine');
  const withGetter = (transition: Transition, key: string, get: () => unknown) =>
    Object.defineProperty({ ...transition }, key, { get, enumerable: true });
  const throws = withGetter(good, 'B', () => {
    throw bomb;
  });
  expect(() => applyTransition(stream, throws)).toThrow(bomb);
  const fork = stream.fork();
  const closes = withGetter(good, 'B', () => {
    fork.close();
    return good.B;
  });
  expectThrow(() => applyTransition(fork, closes), { code: 'ERR_CLOSED' });
  const mine = structuredClone(good);
  const writes = withGetter(mine, 'before', () => {
    mine.B.fill(Number.NaN);
    return good.before;
  });
  expectThrow(() => applyTransition(stream, writes), { code: RANGE, says: ['B[0]'] });
});

test('methods that a user has put over a stream are not called', () => {
  const [own, plain] = [stream.fork(), stream.fork()];
  for (const method of ['memory', 'exportTransition', 'fork'] as const) {
    Object.defineProperty(own, method, {
      value: () => {
        throw new Error('not yours');
      },
    });
  }
  expect(stateOf(applyTransition(own, good))).toEqual(stateOf(applyTransition(plain, good)));
});

test('options of createRecorder', () => {
  const create = device.createRecorder.bind(device) as (config: unknown, options?: unknown) => unknown;
  const six = new Float64Array(6);
  for (const [options, code, says] of [
    [null, TYPE, 'options'],
    [{ z: six }, TYPE, "'z'"],
    [{ normalizer: new Float32Array(6) }, TYPE, 'options.normalizer'],
    [{ normalizer: [1, 2, 3, 4, 5, 6] }, TYPE, 'options.normalizer'],
    [{ normalizer: new Float64Array(5) }, SHAPE, '6 elements'],
    [{ normalizer: spoilt(six, Number.NaN) }, RANGE, 'normalizer[1]'],
    [{ normalizer: spoilt(six, -1) }, RANGE, 'below 0'],
  ] as const) {
    expectThrow(() => create(config, options), { code, says: [says] });
  }
  expectThrow(() => create({ ...config, headDim: 0 }), { code: RANGE, says: ['headDim'] });
  expectThrow(() => create({ ...config, gate: [1] }), { code: SHAPE, says: ['gate'] });
  expectThrow(() => create(undefined), { code: TYPE, says: ['config'] });
});

test('arguments of absorb', async () => {
  const recorder = device.createRecorder(config);
  const absorb = recorder.absorb.bind(recorder) as (input: unknown, options?: unknown) => Promise<void>;
  const [k, v] = [new Float32Array(24), new Float32Array(16)];
  for (const [input, code, says] of [
    [undefined, TYPE, 'input'],
    [{ k }, TYPE, 'input.v'],
    [{ v }, TYPE, 'input.k'],
    [{ q: k, k, v }, TYPE, "'q'"],
    [{ k: Array.from(k), v }, TYPE, 'input.k'],
    [{ k: device.tensor([24], 'float32'), v }, TYPE, 'input.k'],
    [{ k: new Uint16Array(24), v }, 'ERR_DTYPE', 'input.k'],
    [{ k, v: new Float64Array(16) }, 'ERR_DTYPE', 'input.v'],
    [{ k: new Float32Array(0), v }, SHAPE, 'input.k'],
    [{ k: new Float32Array(25), v }, SHAPE, '[tokens, 2, 3]'],
    [{ k, v: new Float32Array(17) }, SHAPE, '[4, 2, 2]'],
  ] as const) {
    await expectReject(() => absorb(input), { code, says: [says] });
  }
  await expectReject(() => absorb({ k, v }, { signal: {} }), { code: TYPE, says: ['signal'] });
  await expectReject(() => absorb({ k, v }, { out: k }), { code: TYPE, says: ["'out'"] });
  await expectReject(() => absorb({ k, v }, { signal: AbortSignal.abort() }), { code: 'ABORT_ERR' });
  const closes = {
    k,
    get v() {
      recorder.close();
      return v;
    },
  };
  expect([recorder.tokens, recorder.closed]).toEqual([0, false]);
  await expectReject(() => absorb(closes), { code: 'ERR_CLOSED' });
});

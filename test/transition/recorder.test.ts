import type { Device, Recorder, StreamConfig } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject, expectThrow } from '../support/failures';
import { cut, dataOf, type MadeInput, makeInput } from '../support/inputs';
import { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { sizes } from '../support/sizes';

/** The recorder: calls, their order and their failures. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const config = { heads: 2, headDim: 6, valueDim: 5, segmentLength: 8, rule: 'delta' as const };
/** More columns than a stream has, so that two of them must agree. */
const wide = { heads: 1, headDim: 255, valueDim: 2, segmentLength: 2, rule: 'delta' as const };
const normalizer = Float64Array.from({ length: 12 }, (_, i) => 3 + i);

const keysAndValues = (input: MadeInput) => {
  const { k, v } = dataOf(input);
  return { k, v };
};
const some = (tokens: number, seed: number, shape: typeof config | typeof wide = config) =>
  makeInput({ ...shape, kvHeads: shape.heads, dtype: 'float32' }, tokens, new Rng(seed));

// Closed after each test: the counts of streams are the whole process's.
const opened: { close(): void }[] = [];
function open(shape: StreamConfig, z = new Float64Array(shape.heads * shape.headDim).fill(3)): Recorder {
  const recorder = device.createRecorder(shape, { normalizer: z });
  opened.push(recorder);
  return recorder;
}
afterEach(() => {
  for (const one of opened.splice(0)) one.close();
});

/** A stream that was closed at work is gone when its call is. */
async function streamsBecome(count: number): Promise<void> {
  for (let i = 0; i < 500 && device.stats().streams !== count; i++)
    await new Promise((resolve) => setTimeout(resolve, 10));
  expect(device.stats().streams).toBe(count);
}

async function transitionAfter(recorder: Recorder, input: MadeInput) {
  await recorder.absorb(keysAndValues(input));
  return recorder.exportTransition();
}

seededTest('calls take effect in call order, however the tokens are cut', async (rng) => {
  const input = some(40, 1);
  const wanted = await transitionAfter(open(config), input);
  const recorder = open(config);
  const pieces = cut(input, rng.pieces(40, 11));
  const settled: number[] = [];
  await Promise.all(
    pieces.map((piece, i) => recorder.absorb(keysAndValues(piece)).then(() => settled.push(i))),
  );
  expect(settled).toEqual(pieces.map((_, i) => i));
  expect(recorder.tokens).toBe(40);
  expect(recorder.exportTransition()).toEqual(wanted);
});

test('goes on after an export, which is a copy', async () => {
  const input = some(16, 2);
  const [first, second] = cut(input, [8, 8]);
  const recorder = open(config);
  const early = await transitionAfter(recorder, first);
  const copy = structuredClone(early);
  for (const array of [early.A, early.B, early.normalizer, early.before]) array?.fill(9);
  expect(recorder.exportTransition()).toEqual(copy);
  const both = await transitionAfter(recorder, second);
  expect(both).toEqual(await transitionAfter(open(config), input));
});

test('arrays are the callers again at once, the normalizer too', async () => {
  const input = some(8, 3);
  const wanted = await transitionAfter(open(config, normalizer), input);
  const mine = normalizer.slice();
  const recorder = open(config, mine);
  mine.fill(1);
  const { k, v } = keysAndValues(some(8, 3));
  const call = recorder.absorb({ k, v });
  k.fill(1);
  v.fill(1);
  await call;
  expect(recorder.exportTransition()).toEqual(wanted);
});

describe.each([
  ['of one stream', config, 3],
  ['of two streams', wide, 4],
] as const)('a recorder %s', (_, shape, seed) => {
  const make = () => open(shape);
  const good = () => some(shape.segmentLength * 2, seed, shape);

  test('is as before when a call fails, and its streams do not multiply', async () => {
    const { streams } = device.stats();
    const recorder = make();
    const held = device.stats().streams - streams;
    const before = await transitionAfter(recorder, good());
    const input = keysAndValues(good());
    const { k, v } = input;
    const spoilt = (array: typeof k) => {
      const copy = array.slice();
      copy[copy.length - 1] = Number.NaN;
      return copy;
    };
    const token = shape.segmentLength * 2 - 1;
    await expectReject(() => recorder.absorb({ k: spoilt(k), v }), {
      code: 'ERR_NON_FINITE',
      tensor: 'k',
      token,
    });
    await expectReject(() => recorder.absorb({ k, v: spoilt(v) }), {
      code: 'ERR_NON_FINITE',
      tensor: 'v',
      token,
    });
    const aborter = new AbortController();
    const call = recorder.absorb(input, { signal: aborter.signal });
    aborter.abort();
    await expectReject(() => call, { code: 'ABORT_ERR' });
    expect(recorder.exportTransition()).toEqual(before);
    // A call behind one that fails is not touched by it.
    const failing = recorder.absorb({ k, v: spoilt(v) }).catch((error) => error.code);
    const after = await transitionAfter(recorder, good());
    expect(await failing).toBe('ERR_NON_FINITE');
    const twice = make();
    await twice.absorb(input);
    await twice.absorb(input);
    expect(after).toEqual(twice.exportTransition());
    twice.close();
    await streamsBecome(streams + held);
    recorder.close();
    await streamsBecome(streams);
  });

  test('closes with calls pending', async () => {
    const { streams } = device.stats();
    const { tokens, ...busy } = sizes.busyCall;
    // [B | A] fits one stream of 256 columns, or not.
    const valueDim = shape === wide ? 256 : 256 - busy.headDim;
    const recorder = open({ heads: 8, valueDim, rule: 'delta', ...busy });
    expect(device.stats().streams - streams).toBe(shape === wide ? 2 : 1);
    const [k, v] = [busy.headDim, valueDim].map((width) => new Float32Array(tokens * 8 * width));
    const calls = [0, 1].map(() => recorder.absorb({ k, v }));
    await Promise.resolve(); // the first one is at work
    recorder.close();
    expect(recorder.closed).toBe(true);
    for (const call of calls) await expectReject(() => call, { code: 'ERR_CLOSED' });
    await streamsBecome(streams);
    recorder.close();
    await expectReject(() => recorder.absorb(keysAndValues(good())), { code: 'ERR_CLOSED' });
    expectThrow(() => recorder.exportTransition(), { code: 'ERR_CLOSED' });
    expect(recorder.tokens).toBe(0);
  });
});

test('closes with its device', async () => {
  const mine = openTestDevice();
  const recorder = mine.createRecorder(config);
  const call = recorder.absorb(keysAndValues(some(8, 5)));
  mine.close();
  await expectReject(() => call, { code: 'ERR_CLOSED' });
  expect(recorder.closed).toBe(true);
  expectThrow(() => mine.createRecorder(config), { code: 'ERR_CLOSED' });
});

test('a transition is exported between calls and between segments', async () => {
  const recorder = open(config);
  const call = recorder.absorb(keysAndValues(some(8, 6)));
  expectThrow(() => recorder.exportTransition(), { code: 'ERR_BUSY', says: ['exportTransition'] });
  await call;
  expect(recorder.exportTransition().tokens).toBe(8);
  await recorder.absorb(keysAndValues(some(3, 7)));
  expect(recorder.tokens).toBe(11);
  expectThrow(() => recorder.exportTransition(), { code: 'ERR_OUT_OF_RANGE', says: ['3 tokens'] });
});

test('and so it is of a stream', async () => {
  const stream = device.createStream(config);
  opened.push(stream);
  const call = stream.attend(dataOf(some(8, 6)));
  expectThrow(() => stream.exportTransition(), { code: 'ERR_BUSY', says: ['exportTransition'] });
  await call;
  expect(stream.exportTransition().tokens).toBe(8);
  stream.attendSync(dataOf(some(1, 7)));
  expectThrow(() => stream.exportTransition(), { code: 'ERR_OUT_OF_RANGE', says: ['1 tokens'] });
  stream.close();
  expectThrow(() => stream.exportTransition(), { code: 'ERR_CLOSED' });
});

test('has the configuration of the stream that it stands for', () => {
  const recorder = open({ ...config, gate: 2, rope: { theta: 10 } });
  using stream = device.createStream({ ...config, gate: 2, rope: { theta: 10 } });
  expect(recorder.config).toEqual(stream.config);
  expect(Object.isFrozen(recorder.config)).toBe(true);
});

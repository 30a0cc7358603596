import { type Device, type MemoryStream, mergeStreams } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectThrow } from '../support/failures';
import { dataOf } from '../support/inputs';
import { seededTest } from '../support/seeded';
import { stateOf } from '../support/state';
import { DTYPES } from '../support/tensors';
import { allowed, makeText, memoryError, type Text } from './text';

/** mergeStreams: the states of the linear rule, added. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const config = { heads: 4, kvHeads: 2, headDim: 6, valueDim: 5, segmentLength: 8, rule: 'linear' as const };

async function streamsOf({ parts }: Text, on = device): Promise<MemoryStream[]> {
  const streams = parts.map(() => on.createStream(config));
  await Promise.all(streams.map((stream, i) => stream.attend(dataOf(parts[i]))));
  return streams;
}

for (const dtype of DTYPES) {
  seededTest(`is the stream of all their tokens, in ${dtype}`, async (rng) => {
    const text = makeText(device, { ...config, dtype }, [3, 1, 2, 4], rng);
    const one = device.createStream({ ...config, dtype });
    await one.attend(dataOf(text.whole));
    const parts = text.parts.map((part) => {
      const stream = device.createStream({ ...config, dtype });
      stream.attendSync(dataOf(part));
      return stream;
    });
    const merged = mergeStreams(parts);
    expect([merged.tokens, merged.segments]).toEqual([80, 10]);
    expect(merged.config).toEqual(one.config);
    expect(memoryError(merged, one)).toBeLessThan(allowed(dtype));
  });
}

seededTest(
  'rounds the sum of the matrices once, and the order of the streams makes no difference',
  async (rng) => {
    const streams = await streamsOf(makeText(device, config, [1, 2, 3], rng));
    const memories = streams.map((stream) => stream.memory());
    const merged = mergeStreams(streams).memory();
    const sum = (key: 'matrix' | 'normalizer', i: number) =>
      memories.reduce((total, memory) => total + memory[key][i], 0);
    expect(merged.matrix).toEqual(merged.matrix.map((_, i) => sum('matrix', i)));
    expect(merged.normalizer).toEqual(merged.normalizer.map((_, i) => sum('normalizer', i)));
    const other = mergeStreams([streams[2], streams[0], streams[1]]).memory();
    const close = (a: number, b: number) => Math.abs(a - b) <= 1e-6 * Math.abs(b);
    expect(other.matrix.every((x, i) => close(x, merged.matrix[i]))).toBe(true);
  },
);

seededTest('leaves the streams as they were, and goes on like any other', async (rng) => {
  const text = makeText(device, config, [1, 2], rng);
  const streams = await streamsOf(text);
  const states = streams.map(stateOf);
  const merged = mergeStreams(streams);
  expect(streams.map(stateOf)).toEqual(states);
  const state = stateOf(merged);
  for (const stream of streams) stream.close();
  expect(stateOf(merged)).toEqual(state);
  merged.attendSync(dataOf(text.whole));
  expect([merged.tokens, merged.segments]).toEqual([48, 6]);
  expect(stateOf(mergeStreams([merged]))).toEqual(stateOf(merged));
});

seededTest('takes streams of other devices, heads and gates, and is like the first', async (rng) => {
  const text = makeText(device, config, [1, 2], rng);
  const [first] = await streamsOf(text);
  using elsewhere = openTestDevice();
  const [, second] = await streamsOf(text, elsewhere);
  const other = device.createStream({ ...config, heads: 2, gate: 3 });
  const merged = mergeStreams([first, other, second]);
  expect(merged.config).toEqual(first.config);
  elsewhere.close();
  expect([second.closed, merged.closed, merged.tokens]).toEqual([true, false, 24]);
});

seededTest('of empty streams is an empty stream', () => {
  const streams = [device.createStream(config), device.createStream(config)];
  expect(stateOf(mergeStreams(streams))).toEqual(stateOf(streams[0]));
});

test('refuses what is not a list of such streams, and changes none', async () => {
  const stream = device.createStream(config);
  const open = device.createStream(config);
  const token = { q: new Float32Array(24), k: new Float32Array(12), v: new Float32Array(10) };
  open.attendSync(token);
  const states = [stateOf(stream), stateOf(open)];
  const closed = device.createStream(config);
  closed.close();
  const delta = device.createStream({ ...config, rule: 'delta' });
  const merge = mergeStreams as (streams: unknown) => MemoryStream;
  const TYPE = 'ERR_INVALID_ARG_TYPE';
  const RANGE = 'ERR_OUT_OF_RANGE';
  for (const [streams, code, says] of [
    [undefined, TYPE, 'streams'],
    [stream, TYPE, 'streams'],
    [{ length: 1, 0: stream }, TYPE, 'streams'],
    [[stream, {}], TYPE, 'streams[1]'],
    [[stream, Object.create(stream)], TYPE, 'streams[1]'],
    [[undefined, stream], TYPE, 'streams[0]'],
    [[], RANGE, '1 to 4096'],
    [Array(4097).fill(stream), RANGE, '1 to 4096'],
    [[stream, stream], 'ERR_BUSY', 'streams[1]'],
    [[stream, closed], 'ERR_CLOSED', 'closed'],
    [[delta], RANGE, 'delta'],
    [[stream, delta], RANGE, 'delta'],
    [[stream, open], RANGE, 'streams[1]'],
    [[open], RANGE, '1 tokens'],
  ] as const) {
    expectThrow(() => merge(streams), { code, says: [says] });
  }
  for (const change of [{ headDim: 7 }, { valueDim: 6 }, { kvHeads: 4 }, { segmentLength: 4 }]) {
    const other = device.createStream({ ...config, ...change });
    expectThrow(() => mergeStreams([stream, other]), { code: RANGE, says: [Object.keys(change)[0]] });
  }
  expect([stateOf(stream), stateOf(open)]).toEqual(states);
  const busy = device.createStream(config);
  const call = busy.attend(token);
  expectThrow(() => mergeStreams([stream, busy]), { code: 'ERR_BUSY', says: ['mergeStreams'] });
  await call;
});

test('a sum that float32 does not hold is refused', () => {
  const make = () => {
    const stream = device.createStream({ heads: 1, headDim: 1, segmentLength: 1, rule: 'linear' });
    stream.attendSync({ q: new Float32Array(1), k: new Float32Array(1), v: Float32Array.of(3e38) });
    return stream;
  };
  const streams = [make(), make()];
  const states = streams.map(stateOf);
  expectThrow(() => mergeStreams(streams), { code: 'ERR_OUT_OF_RANGE', says: ['streams.B'] });
  expect(streams.map(stateOf)).toEqual(states);
});

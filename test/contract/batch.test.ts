import { type BatchEntry, type Device, DeviceTensor, type MemoryStream, type StreamConfig } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject, expectThrow } from '../support/failures';
import { busyStream } from '../support/front';
import { dataOf, makeInput } from '../support/inputs';
import { withHistory } from '../support/refusals';
import type { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { sizes } from '../support/sizes';
import { stateOf } from '../support/state';
import { bytesOf, poisoned } from '../support/tensors';

/** device.attendBatch: many calls at once, each on its own. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const configs: StreamConfig[] = [
  { heads: 4, kvHeads: 2, headDim: 6, valueDim: 5, segmentLength: 8 },
  { heads: 2, headDim: 16, segmentLength: 5, dtype: 'bfloat16', rule: 'linear' },
  { heads: 1, headDim: 33, valueDim: 7, segmentLength: 16, dtype: 'float16', emptyRead: 'local' },
  { heads: 6, kvHeads: 1, headDim: 8, segmentLength: 1, rope: { theta: 100 }, gate: [0, 1, -1, 2, 0, 3] },
];
const inputFor = (stream: MemoryStream, tokens: number, rng: Rng) =>
  dataOf(makeInput(stream.config, tokens, rng));
const small = { heads: 1, headDim: 2, segmentLength: 4 };
const ones = () => ({ q: Float32Array.of(1, 1), k: Float32Array.of(1, 1), v: Float32Array.of(1, 1) });
const batch = (entries: unknown, options?: unknown) =>
  device.attendBatch(entries as BatchEntry[], options as object);
const codes = (results: PromiseSettledResult<unknown>[]) =>
  results.map((result) => (result.status === 'fulfilled' ? 'done' : (result.reason.code ?? result.reason)));

seededTest('gives the bits of the same calls made alone, whatever the configurations', async (rng) => {
  const streams = Array.from({ length: 12 }, (_, i) => device.createStream(configs[i % configs.length]));
  const twins = streams.map((stream) => device.createStream(stream.config));
  const tensors: DeviceTensor[] = [];
  for (let round = 0; round < 6; round++) {
    const inputs = streams.map((stream) => inputFor(stream, rng.pick([1, 1, 2, 7, 20]), rng));
    const entries = streams.map((stream, i): BatchEntry => {
      const { heads, valueDim, headDim, dtype } = stream.config;
      const length = (inputs[i].q.length / headDim) * valueDim;
      const how = rng.pick(['new', 'array', 'tensor', 'tensors']);
      if (how === 'new') return { stream, ...inputs[i] };
      if (how === 'array') return { stream, ...inputs[i], out: poisoned(dtype, length) };
      const out = device.tensor([length / heads / valueDim, heads, valueDim], dtype, poisoned(dtype, length));
      const q = device.tensor([inputs[i].q.length], dtype, inputs[i].q);
      tensors.push(out, q);
      return { stream, ...inputs[i], ...(how === 'tensors' && { q }), out };
    });
    const results = await device.attendBatch(entries);
    expect(codes(results)).toEqual(streams.map(() => 'done'));
    for (const [i, result] of results.entries()) {
      if (result.status !== 'fulfilled') throw result.reason;
      if (entries[i].out) expect(result.value).toBe(entries[i].out);
      const { value } = result;
      const found = value instanceof DeviceTensor ? await value.read() : value;
      expect(bytesOf(found).equals(bytesOf(twins[i].attendSync(inputs[i])))).toBe(true);
      expect([streams[i].tokens, streams[i].segments]).toEqual([twins[i].tokens, twins[i].segments]);
    }
  }
  expect(streams.map(stateOf)).toEqual(twins.map(stateOf));
  for (const one of [...streams, ...twins, ...tensors]) one.close();
});

seededTest('each entry fails by itself', async (rng) => {
  const good = Array.from({ length: 4 }, (_, i) => withHistory(device.createStream(configs[i])));
  const twins = good.map((stream) => stream.fork());
  const fresh = () => withHistory(device.createStream(configs[0]));
  const data = inputFor(good[0], 9, rng);
  const nan = { ...data, v: data.v.slice() };
  nan.v[4 * 10] = Number.NaN;
  const closed = fresh();
  closed.close();
  const gone = device.tensor([9, 4, 6], 'float32');
  gone.close();
  const getter = new Error('mine');
  const wrong: [unknown, string, object?][] = [
    [undefined, 'ERR_INVALID_ARG_TYPE'],
    [null, 'ERR_INVALID_ARG_TYPE'],
    [5, 'ERR_INVALID_ARG_TYPE'],
    [[], 'ERR_INVALID_ARG_TYPE'],
    [{ ...data }, 'ERR_INVALID_ARG_TYPE'],
    [{ stream: {}, ...data }, 'ERR_INVALID_ARG_TYPE'],
    [{ stream: Object.create(good[0]), ...data }, 'ERR_INVALID_ARG_TYPE'],
    [{ stream: fresh(), ...data, extra: 1 }, 'ERR_INVALID_ARG_TYPE'],
    [{ stream: fresh(), ...data, k: undefined }, 'ERR_INVALID_ARG_TYPE'],
    [{ stream: fresh(), ...data, out: [] }, 'ERR_INVALID_ARG_TYPE'],
    [{ stream: closed, ...data }, 'ERR_CLOSED'],
    [{ stream: fresh(), ...data, q: gone }, 'ERR_CLOSED'],
    [{ stream: fresh(), ...data, q: new Uint16Array(216) }, 'ERR_DTYPE'],
    [{ stream: fresh(), ...data, v: data.v.subarray(1) }, 'ERR_SHAPE'],
    [{ stream: fresh(), ...data, out: new Float32Array(7) }, 'ERR_SHAPE'],
    [{ stream: fresh(), ...nan }, 'ERR_NON_FINITE', { tensor: 'v', token: 4 }],
    [{ stream: good[0], ...data }, 'ERR_BUSY'], // occurs before
    [
      Object.defineProperty({}, 'stream', {
        get: () => {
          throw getter;
        },
        enumerable: true,
      }),
      'mine',
    ],
  ];
  const states = wrong.map(([entry]) => stateOfEntry(entry));
  const inputs = good.map((stream) => inputFor(stream, 9, rng));
  const fine = good.map((stream, i) => ({ stream, ...inputs[i] }));
  const results = await batch([fine[0], ...wrong.map(([entry]) => entry), ...fine.slice(1)]);
  expect(codes(results).map((code) => (code === getter ? 'mine' : code))).toEqual([
    'done',
    ...wrong.map(([, code]) => code),
    'done',
    'done',
    'done',
  ]);
  for (const [i, [, , says]] of wrong.entries())
    if (says) expect((results[i + 1] as PromiseRejectedResult).reason).toMatchObject(says);
  for (const [i, twin] of twins.entries()) twin.attendSync(inputs[i]);
  expect(good.map(stateOf)).toEqual(twins.map(stateOf));
  expect(
    wrong.map(([entry], i) => entry === wrong[16][0] || stateOfEntry(entry) === states[i]),
  ).not.toContain(false);
  for (const one of [...good, ...twins]) one.close();
});

function stateOfEntry(entry: unknown): string {
  try {
    return JSON.stringify(stateOf((entry as BatchEntry).stream));
  } catch {
    return 'none';
  }
}

test('messages name the entry', async () => {
  const stream = device.createStream(small);
  const results = await batch([{ stream, ...ones(), q: 5 }, 5, { stream: 5 }]);
  const messages = results.map((result) => (result as PromiseRejectedResult).reason.message);
  expect(messages[0]).toContain('"entries[0].q"');
  expect(messages[1]).toContain('"entries[1]"');
  expect(messages[2]).toContain('"entries[2].stream"');
  stream.close();
});

test('a stream may occur once, whatever becomes of it there', async () => {
  const [stream, twin] = [device.createStream(small), device.createStream(small)];
  expect(
    codes(
      await batch([
        { stream, ...ones() },
        { stream, ...ones() },
        { stream, ...ones() },
      ]),
    ),
  ).toEqual(['done', 'ERR_BUSY', 'ERR_BUSY']);
  const bad = { ...ones(), k: new Float32Array(3) };
  expect(
    codes(
      await batch([
        { stream, ...bad },
        { stream, ...ones() },
      ]),
    ),
  ).toEqual(['ERR_SHAPE', 'ERR_BUSY']);
  twin.attendSync(ones());
  expect(stateOf(stream)).toEqual(stateOf(twin));
  for (const one of [stream, twin]) one.close();
});

seededTest('calls of one stream keep their order around it', async (rng) => {
  const { stream, front } = busyStream(device);
  stream.close();
  await front;
  const streams = configs.map((config) => device.createStream(config));
  const twins = configs.map((config) => device.createStream(config));
  const inputs = streams.map((one) => [0, 1, 2].map(() => inputFor(one, rng.int(1, 9), rng)));
  const settled: string[] = [];
  const before = streams.map((one, i) => one.attend(inputs[i][0]).then(() => settled.push(`before ${i}`)));
  const within = device.attendBatch(streams.map((one, i) => ({ stream: one, ...inputs[i][1] })));
  const after = streams.map((one, i) => one.attend(inputs[i][2]).then(() => settled.push(`after ${i}`)));
  for (const one of streams) expectThrow(() => one.memory(), { code: 'ERR_BUSY' });
  await Promise.all([...before, within, ...after]);
  for (const [i, twin] of twins.entries()) {
    expect(settled.indexOf(`before ${i}`)).toBeLessThan(settled.indexOf(`after ${i}`));
    for (const input of inputs[i]) twin.attendSync(input);
  }
  expect(streams.map(stateOf)).toEqual(twins.map(stateOf));
  for (const one of [...streams, ...twins]) one.close();
});

test('an empty batch resolves to nothing', async () => {
  expect(await batch([])).toEqual([]);
});

test('what is no batch at all rejects as a whole', async () => {
  const stream = device.createStream(small);
  const entries = [{ stream, ...ones() }];
  const TYPE = 'ERR_INVALID_ARG_TYPE';
  for (const wrong of [undefined, null, 5, 'x', {}, new Set(entries), { length: 1, 0: entries[0] }])
    await expectReject(() => batch(wrong), { code: TYPE, says: ['entries', 'array'] });
  await expectReject(() => batch(new Array(4097)), { code: 'ERR_OUT_OF_RANGE', says: ['entries', '4096'] });
  await expectReject(() => batch(new Array(2 ** 32 - 1)), { code: 'ERR_OUT_OF_RANGE', says: ['entries'] });
  for (const options of [null, 5, [], { more: 1 }])
    await expectReject(() => batch(entries, options), { code: TYPE, says: ['options'] });
  for (const signal of [null, {}, new EventTarget()])
    await expectReject(() => batch(entries, { signal }), { code: TYPE, says: ['options.signal'] });
  const { proxy, revoke } = Proxy.revocable(entries, {});
  revoke();
  await expectReject(() => batch(proxy), { code: TYPE, says: ['entries'] });
  expect(stream.tokens).toBe(0);
  stream.close();
  const closed = openTestDevice();
  closed.close();
  await expectReject(() => closed.attendBatch([]), { code: 'ERR_CLOSED', says: ['device'] });
});

test(`${sizes.batchEntries} entries are not too many`, async () => {
  const streams = Array.from({ length: sizes.batchEntries }, () => device.createStream(small));
  const results = await device.attendBatch(streams.map((stream) => ({ stream, ...ones() })));
  expect(new Set(codes(results))).toEqual(new Set(['done']));
  expect(new Set(streams.map(({ tokens }) => tokens))).toEqual(new Set([1]));
  for (const stream of streams) stream.close();
});

describe('aborting', () => {
  test('before it begins rejects every entry, unless something else is wrong with it', async () => {
    const [first, second] = [device.createStream(small), device.createStream(small)];
    const entries = [
      { stream: first, ...ones() },
      { stream: second, ...ones(), q: 1 },
    ];
    const results = await batch(entries, { signal: AbortSignal.abort('why') });
    expect(codes(results)).toEqual(['ABORT_ERR', 'ERR_INVALID_ARG_TYPE']);
    expect((results[0] as PromiseRejectedResult).reason).toMatchObject({ name: 'AbortError', cause: 'why' });
    expect([first.tokens, second.tokens]).toEqual([0, 0]);
    for (const one of [first, second]) one.close();
  });

  test('in the middle rejects those that have not ended', async () => {
    const { stream: slow } = busyStream(device);
    const quick = device.createStream(small);
    const controller = new AbortController();
    const row = new Float32Array(8 * slow.config.headDim);
    const entries = [
      { stream: quick, ...ones() },
      { stream: slow, q: row, k: row, v: row },
    ];
    const pending = device.attendBatch(entries, { signal: controller.signal });
    while (device.stats().pendingCalls > 2) await new Promise((resolve) => setTimeout(resolve, 1));
    controller.abort();
    expect(codes(await pending)).toEqual(['done', 'ABORT_ERR']);
    expect(quick.tokens).toBe(1);
    for (const one of [slow, quick]) one.close();
  });
});

test('closing a stream rejects its entry alone', async () => {
  const { stream: slow } = busyStream(device);
  const quick = device.createStream(small);
  const row = new Float32Array(8 * slow.config.headDim);
  const pending = batch([
    { stream: slow, q: row, k: row, v: row },
    { stream: quick, ...ones() },
  ]);
  slow.close();
  expect(codes(await pending)).toEqual(['ERR_CLOSED', 'done']);
  quick.close();
});

test('tensors stay leased until all entries have settled', async () => {
  const { stream: slow, front } = busyStream(device);
  const quick = device.createStream(small);
  const row = new Float32Array(8 * slow.config.headDim);
  const [q, out] = [device.tensor([2], 'float32'), device.tensor([2], 'float32')];
  const pending = batch([
    { stream: quick, ...ones(), q, out },
    { stream: slow, q: row, k: row, v: row },
  ]);
  const again = quick.attend(ones()); // settles when the first entry has
  await again;
  for (const tensor of [q, out]) expectThrow(() => tensor.close(), { code: 'ERR_BUSY' });
  expect(codes(await pending)).toEqual(['done', 'done']);
  for (const one of [q, out, quick, slow]) one.close();
  await front;
});

test('a tensor may be the input of many entries, and the out of one', async () => {
  const streams = [0, 1, 2].map(() => device.createStream(small));
  const [q, out] = [device.tensor([2], 'float32'), device.tensor([2], 'float32')];
  const results = await batch([
    { stream: streams[0], ...ones(), q, out },
    { stream: streams[1], ...ones(), q, out },
    { stream: streams[2], ...ones(), k: out },
  ]);
  expect(codes(results)).toEqual(['done', 'ERR_BUSY', 'ERR_BUSY']);
  for (const one of [q, out, ...streams]) one.close();
});

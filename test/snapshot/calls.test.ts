import type { Device } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject, expectThrow } from '../support/failures';
import { dataOf, makeInput, tokensOf } from '../support/inputs';
import { withHistory } from '../support/refusals';
import { Rng } from '../support/rng';
import { sizes } from '../support/sizes';
import { stateOf } from '../support/state';
import { takeApart } from './files';

let device: Device;
beforeEach(() => {
  device = openTestDevice();
});
afterEach(() => device.close());

const config = { heads: 2, headDim: 4, segmentLength: 8 };
const newStream = () => withHistory(device.createStream(config)); // 12 tokens
function more(tokens: number) {
  using one = device.createStream(config);
  return makeInput(one.config, tokens, new Rng(5));
}

test('snapshots among pending calls take effect in call order', async () => {
  const [stream, twin] = [newStream(), newStream()];
  const input = more(15);
  const cuts = [0, 2, 3, 9, 15];
  const pending: Promise<Uint8Array>[] = [stream.snapshot()];
  const states = [Buffer.from(await twin.snapshot())];
  for (let i = 1; i < cuts.length; i++) {
    const piece = dataOf(tokensOf(input, cuts[i - 1], cuts[i]));
    void stream.attend(piece);
    pending.push(stream.snapshot());
    twin.attendSync(piece);
    states.push(Buffer.from(await twin.snapshot()));
  }
  const taken = await Promise.all(pending);
  expect(taken.map((bytes, i) => states[i].equals(bytes))).toEqual(cuts.map(() => true));
  expect(taken.map((bytes) => takeApart(bytes).metadata.tokens)).toEqual(['12', '14', '15', '21', '27']);
  expect(stream.tokens).toBe(27);
});

test('a pending snapshot is a pending call', async () => {
  const stream = newStream();
  const pending = stream.snapshot();
  const busy = { code: 'ERR_BUSY', says: ['1 have not settled'] };
  expectThrow(() => stream.memory(), busy);
  expectThrow(() => stream.reset(), busy);
  expectThrow(() => stream.fork(), busy);
  expectThrow(() => stream.attendSync(dataOf(more(1))), busy);
  await pending;
  stream.reset();
  expect(stream.tokens).toBe(0);
});

test('a snapshot changes nothing', async () => {
  const stream = newStream();
  const before = stateOf(stream);
  await stream.snapshot();
  expect(stateOf(stream)).toEqual(before);
});

test('after a failed call it holds the state before it', async () => {
  const stream = newStream();
  const before = Buffer.from(await stream.snapshot());
  const bad = dataOf(more(3));
  bad.k[5] = Number.NaN;
  const failed = stream.attend(bad);
  const taken = stream.snapshot();
  await expect(failed).rejects.toMatchObject({ code: 'ERR_NON_FINITE' });
  expect(before.equals(await taken)).toBe(true);
});

test('closing settles it, and the call that it waits for', async () => {
  const { tokens, ...shape } = sizes.busyCall;
  const stream = device.createStream({ heads: 8, ...shape });
  const data = new Float32Array(8 * shape.headDim * tokens).fill(0.1);
  const closed = { code: 'ERR_CLOSED' };
  const work = stream.attend({ q: data, k: data, v: data });
  const taken = stream.snapshot();
  stream.close();
  await Promise.all([work, taken].map((promise) => expectReject(() => promise, closed)));
  await expectReject(() => stream.snapshot(), { ...closed, says: ['open stream'] });
});

test('a restored stream belongs to its device, is counted, and is empty of pending calls', async () => {
  const stream = newStream();
  const bytes = await stream.snapshot();
  const before = device.stats();
  const restored = await device.restore(bytes);
  const { streams, streamBytes } = device.stats(); // less: garbage of other tests
  expect(streams).toBeLessThanOrEqual(before.streams + 1);
  expect(streamBytes).toBeLessThanOrEqual(before.streamBytes + restored.byteLength);
  expect([restored.tokens, restored.segments, restored.byteLength]).toEqual([12, 1, stream.byteLength]);
  expect(Object.isFrozen(restored.config) && Object.isFrozen(restored.config.gate)).toBe(true);
  stream.close();
  expect(restored.attendSync(dataOf(more(1))).length).toBe(8);
  restored.close();
  expect(device.stats().streams).toBeLessThanOrEqual(before.streams - 1);
  const left = await device.restore(bytes);
  device.close();
  expect(left.closed).toBe(true);
});

test('the bytes are read before restore returns, and are never written', async () => {
  const bytes = await newStream().snapshot();
  const copy = Buffer.from(bytes);
  const promise = device.restore(bytes);
  bytes.fill(0);
  const restored = await promise;
  expect(copy.equals(await restored.snapshot())).toBe(true);
  const detached = Uint8Array.from(copy);
  const other = device.restore(detached);
  structuredClone(detached, { transfer: [detached.buffer] });
  expect(copy.equals(await (await other).snapshot())).toBe(true);
  await device.restore(copy);
  expect(copy.equals(await restored.snapshot())).toBe(true);
});

test('bytes may lie anywhere: at an odd offset, in shared memory, in a Buffer', async () => {
  const bytes = await newStream().snapshot();
  const odd = new Uint8Array(bytes.length + 3).subarray(3);
  odd.set(bytes);
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
  shared.set(bytes);
  for (const one of [odd, shared, Buffer.from(bytes)])
    expect(Buffer.from(bytes).equals(await (await device.restore(one)).snapshot())).toBe(true);
});

test('what is no Uint8Array is refused by its type', async () => {
  const bytes = await newStream().snapshot();
  const { buffer } = bytes;
  const wrong = [undefined, null, 1, 'x', {}, [], buffer, new DataView(buffer), new Uint16Array(4)];
  const { streams } = device.stats();
  for (const one of [...wrong, new Uint8ClampedArray(8), new Proxy(bytes, {}), Object.create(bytes)]) {
    const call = () => device.restore(one as Uint8Array);
    await expectReject(call, { code: 'ERR_INVALID_ARG_TYPE', says: ['a Uint8Array for "bytes"'] });
  }
  expect(device.stats().streams).toBeLessThanOrEqual(streams);
});

test('bytes that lie about themselves are read as what they are', async () => {
  const bytes = await newStream().snapshot();
  const lying = Object.defineProperties(Uint8Array.from(bytes), {
    length: { value: 3 },
    buffer: { value: null },
    [Symbol.iterator]: { value: () => [][Symbol.iterator]() },
    constructor: { value: null },
  });
  const restored = await device.restore(lying);
  expect(Buffer.from(bytes).equals(await restored.snapshot())).toBe(true);
});

test('a closed device restores nothing, also when it is closed meanwhile', async () => {
  const bytes = await newStream().snapshot();
  const closed = { code: 'ERR_CLOSED', says: ['open device'] };
  const pending = device.restore(bytes);
  device.close();
  await expectReject(() => pending, closed);
  await expectReject(() => device.restore(bytes), closed);
});

import { constants } from 'node:buffer';
import { type Device, DeviceTensor, type MemoryStream, type Tensor } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject, expectThrow } from '../support/failures';
import { busyStream } from '../support/front';
import { dataOf, makeInput } from '../support/inputs';
import { withHistory } from '../support/refusals';
import type { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { stateOf } from '../support/state';
import { bytesOf, DTYPES, poisoned } from '../support/tensors';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const shape = { heads: 4, kvHeads: 2, headDim: 6, valueDim: 5, segmentLength: 8 };
const TOKENS = 11;
type DType = (typeof DTYPES)[number];
const newStream = (dtype: DType = 'float32') => withHistory(device.createStream({ ...shape, dtype }));
const inputFor = (stream: MemoryStream, rng: Rng) => dataOf(makeInput(stream.config, TOKENS, rng));

/** Copies of arrays side by side in one host buffer, some bytes apart. */
function pinned<T extends Tensor[]>(...arrays: T): T {
  const gap = 12;
  const buffer = device.hostBuffer(arrays.reduce((sum, { byteLength }) => sum + byteLength + gap, gap));
  let at = gap;
  return arrays.map((array) => {
    const Class = array.constructor as Float32ArrayConstructor;
    const copy = new Class(buffer, at, array.length);
    copy.set(array);
    at += array.byteLength + gap;
    return copy;
  }) as T;
}

test('a host buffer is an ArrayBuffer of zeros', () => {
  for (const bytes of [1, 7, 64, 100_000]) {
    const buffer = device.hostBuffer(bytes);
    expect(buffer).toBeInstanceOf(ArrayBuffer);
    expect(buffer.byteLength).toBe(bytes);
    expect(new Uint8Array(buffer).every((byte) => byte === 0)).toBe(true);
    new Uint8Array(buffer).fill(0xff);
  }
});

test.each<[unknown, string]>([
  [undefined, 'ERR_INVALID_ARG_TYPE'],
  ['8', 'ERR_INVALID_ARG_TYPE'],
  [8n, 'ERR_INVALID_ARG_TYPE'],
  [[8], 'ERR_INVALID_ARG_TYPE'],
  [0, 'ERR_OUT_OF_RANGE'],
  [-8, 'ERR_OUT_OF_RANGE'],
  [1.5, 'ERR_OUT_OF_RANGE'],
  [Number.NaN, 'ERR_OUT_OF_RANGE'],
  [constants.MAX_LENGTH + 1, 'ERR_OUT_OF_RANGE'],
  [Number.POSITIVE_INFINITY, 'ERR_OUT_OF_RANGE'],
])('of %p bytes it is refused', (bytes, code) => {
  const { tensorBytes } = device.stats();
  expectThrow(() => device.hostBuffer(bytes as number), { code, says: ['byteLength'] });
  expect(device.stats().tensorBytes).toBe(tensorBytes);
});

test('a closed device has none', () => {
  const own = openTestDevice();
  const buffer = own.hostBuffer(16);
  own.close();
  expectThrow(() => own.hostBuffer(16), { code: 'ERR_CLOSED' });
  expectThrow(() => own.hostBuffer('x' as never), { code: 'ERR_CLOSED' });
  new Uint8Array(buffer).fill(1); // it outlives the handle, and serves others
  const stream = device.createStream({ heads: 1, headDim: 2, segmentLength: 4 });
  const row = new Float32Array(buffer, 0, 2);
  expect(stream.attendSync({ q: row, k: row, v: row }).length).toBe(2);
  stream.close();
});

describe.each(DTYPES)('%s arrays in a host buffer', (dtype) => {
  seededTest('are taken in any place, with the same bits', async (rng) => {
    for (let mask = 1; mask < 16; mask++) {
      const [plain, sync, async] = [newStream(dtype), newStream(dtype), newStream(dtype)];
      const input = inputFor(plain, rng);
      const wanted = bytesOf(plain.attendSync(input));
      const read = bytesOf(plain.retrieveSync({ q: input.q }));
      const outs = Array.from({ length: 4 }, () => poisoned(dtype, 220));
      const [q, k, v, ...pinnedOuts] = pinned(input.q, input.k, input.v, ...outs);
      const given = { q: mask & 1 ? q : input.q, k: mask & 2 ? k : input.k, v: mask & 4 ? v : input.v };
      const [a, b, c, d] = mask & 8 ? pinnedOuts : outs;
      expect(sync.attendSync(given, { out: a })).toBe(a);
      expect(await async.attend(given, { out: b })).toBe(b);
      expect(sync.retrieveSync({ q: given.q }, { out: c })).toBe(c);
      expect(await async.retrieve({ q: given.q }, { out: d })).toBe(d);
      const same = [a, b, c, d].map((out, i) => bytesOf(out).equals(i < 2 ? wanted : read));
      expect(same).toEqual([true, true, true, true]);
      expect([stateOf(sync), stateOf(async)]).toEqual([stateOf(plain), stateOf(plain)]);
      const around = new Uint8Array(q.buffer);
      for (const array of [q, k, v, ...pinnedOuts])
        around.fill(0, array.byteOffset, array.byteOffset + array.byteLength);
      expect(around.every((byte) => byte === 0)).toBe(true); // nothing beside the outs was written
      for (const stream of [plain, sync, async]) stream.close();
    }
  });

  seededTest('given as out are untouched by a call that fails', async (rng) => {
    const stream = newStream(dtype);
    const input = inputFor(stream, rng);
    input.k[0] = dtype === 'float32' ? Number.NaN : 0x7fff;
    const [out] = pinned(poisoned(dtype, 220).fill(3));
    const failure = { code: 'ERR_NON_FINITE', tensor: 'k', token: 0 };
    expectThrow(() => stream.attendSync(input, { out }), failure);
    await expectReject(() => stream.attend(input, { out }), failure);
    expect(out.every((x) => x === 3)).toBe(true);
    stream.close();
  });
});

test('they are used in place: nothing is staged', async () => {
  const { stream, front } = busyStream(device);
  const { headDim } = stream.config;
  const row = () => new Float32Array(200 * 8 * headDim).fill(0.25);
  const [q, k, v, out] = pinned(row(), row(), row(), row());
  const staged = () => device.stats().stagingBytes;
  const before = staged();
  const pinnedCall = stream.attend({ q, k, v }, { out });
  expect(staged()).toBe(before);
  const plainCall = stream.attend({ q: row(), k: row(), v: row() });
  expect(staged() - before).toBeGreaterThanOrEqual(4 * q.byteLength);
  await Promise.all([front, pinnedCall, plainCall]);
  stream.close();
});

describe('while a call is pending', () => {
  const busy = { code: 'ERR_BUSY' };

  function pendingCall() {
    const { stream, front } = busyStream(device);
    const length = 3 * 8 * stream.config.headDim;
    const rows = Array.from({ length: 5 }, () => new Float32Array(length).fill(0.5));
    const [q, k, v, out, free] = pinned(...rows);
    const plain = { q: rows[0], k: rows[1], v: rows[2] };
    const pending = stream.attend({ q, k, v }, { out });
    const other = device.createStream(stream.config);
    return { stream, other, front, pending, plain, q, k, v, out, free };
  }

  test('the bytes it uses are no other call’s out, and its out no other call’s input', async () => {
    const { stream, other, front, pending, plain, q, out, free } = pendingCall();
    const nearly = [
      new Float32Array(q.buffer, q.byteOffset, q.length),
      new Float32Array(q.buffer, q.byteOffset + 4, q.length),
      new Float32Array(q.buffer, out.byteOffset - 4, q.length),
    ];
    for (const wrong of [...nearly, out]) {
      expectThrow(() => other.attendSync(plain, { out: wrong }), { ...busy, says: ['options.out'] });
      await expectReject(() => other.attend(plain, { out: wrong }), busy);
      await expectReject(() => other.retrieve({ q: plain.q }, { out: wrong }), busy);
    }
    expectThrow(() => other.attendSync({ ...plain, k: out }), { ...busy, says: ['input.k'] });
    await expectReject(() => other.attend({ ...plain, v: out }), busy);
    const tensor = device.tensor([out.length], 'float32');
    expectThrow(() => tensor.write(out), busy);
    expectThrow(() => device.tensor([out.length], 'float32', out), busy);
    tensor.close();
    expect(other.tokens).toBe(0);
    // Its inputs are others' inputs too, and the rest of the buffer is free.
    expect(await other.attend({ ...plain, q }, { out: free })).toBe(free);
    await Promise.all([front, pending]);
    expect(other.attendSync(plain, { out })).toBe(out);
    for (const one of [stream, other]) one.close();
  });

  test('an array of its own call’s inputs is not its out', async () => {
    const [data, same] = pinned(new Float32Array(24), new Float32Array(24));
    const stream = device.createStream({ heads: 1, headDim: 8, segmentLength: 4 });
    const input = { q: data, k: data, v: data };
    expectThrow(() => stream.attendSync(input, { out: data }), busy);
    await expectReject(() => stream.attend(input, { out: data }), busy);
    const shifted = new Float32Array(data.buffer, data.byteOffset + 4, 24);
    await expectReject(() => stream.attend(input, { out: shifted }), busy);
    expect(stream.attendSync(input, { out: same })).toBe(same);
    stream.close();
  });

  seededTest('storing anything in its arrays harms nobody else', async (rng) => {
    const config = { heads: 4, headDim: 16, segmentLength: 32 };
    const [stream, bystander] = [device.createStream(config), device.createStream(config)];
    const calm = dataOf(makeInput(bystander.config, 40, rng));
    const state = stateOf(withHistory(bystander));
    const outcomes = new Set<string>();
    for (let round = 0; round < 40; round++) {
      const [q, k, v, out] = pinned(...[0, 1, 2, 3].map(() => new Float32Array(300 * 64).fill(0.5)));
      const pending = stream.attend({ q, k, v }, { out }).then(
        () => 'done',
        (error) => error.code,
      );
      for (let store = 0; store < 2000; store++)
        rng.pick([q, k, v, out])[rng.int(0, 300 * 64 - 1)] = rng.pick([Number.NaN, 3e38, -0, 1e-45, 2]);
      outcomes.add(await pending);
      stream.reset();
    }
    expect([...outcomes].filter((code) => code !== 'done' && code !== 'ERR_NON_FINITE')).toEqual([]);
    expect(stateOf(bystander)).toEqual(state);
    const fresh = device.createStream(config);
    expect(bytesOf(stream.attendSync(calm)).equals(bytesOf(fresh.attendSync(calm)))).toBe(true);
    for (const one of [stream, bystander, fresh]) one.close();
  });
});

test('it stays in its thread: it can not be transferred, and a copy of it is an ordinary buffer', async () => {
  const buffer = device.hostBuffer(64);
  const view = new Float32Array(buffer).fill(2);
  try {
    structuredClone(buffer, { transfer: [buffer] });
  } catch {
    // Node refuses
  }
  expect(buffer.byteLength).toBe(64);
  const copy = structuredClone(view);
  const stream = device.createStream({ heads: 1, headDim: 16, segmentLength: 4 });
  const { stagingBytes } = device.stats();
  const { front, stream: busy } = busyStream(device);
  const pending = stream.attend({ q: copy, k: copy, v: copy });
  expect(device.stats().stagingBytes).toBeGreaterThan(stagingBytes);
  copy.fill(Number.NaN); // it was copied
  expect((await pending).every((x) => x === 1)).toBe(true);
  await front;
  for (const one of [stream, busy]) one.close();
});

test('stats count its bytes until it is gone', () => {
  const before = device.stats().tensorBytes;
  const buffer = device.hostBuffer(1 << 20);
  expect(device.stats().tensorBytes - before).toBe(1 << 20);
  expect(buffer.byteLength).toBe(1 << 20);
});

test('a device tensor reads from one and is read to an array of its own', async () => {
  const [data] = pinned(Float32Array.of(1, 2, 3));
  const tensor = device.tensor([3], 'float32', data);
  expect(tensor).toBeInstanceOf(DeviceTensor);
  tensor.write(data.fill(7));
  const read = await tensor.read();
  expect([...read]).toEqual([7, 7, 7]);
  expect(read.buffer).not.toBe(data.buffer);
  tensor.close();
});

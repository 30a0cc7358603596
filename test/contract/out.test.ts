import type { Device, Tensor } from '../../lib';
import { openTestDevice } from '../support/device';
import { makeInput } from '../support/inputs';
import { expectRefused, withHistory } from '../support/refusals';
import { Rng } from '../support/rng';
import { bytesOf, poisoned } from '../support/tensors';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const shape = { heads: 2, kvHeads: 2, headDim: 4, valueDim: 4 };
const newStream = (dtype: 'float32' | 'bfloat16' = 'float32') =>
  withHistory(device.createStream({ ...shape, segmentLength: 5, dtype }));
const makeData = (dtype: 'float32' | 'bfloat16' = 'float32', tokens = 9) => {
  const { q, k, v } = makeInput({ ...shape, dtype }, tokens, new Rng(7));
  return { q: q.data, k: k.data, v: v.data };
};
const resizable = (bytes: number) =>
  new (ArrayBuffer as new (length: number, options: { maxByteLength: number }) => ArrayBuffer)(bytes, {
    maxByteLength: 2 * bytes,
  });

describe.each(['float32', 'bfloat16'] as const)('out of a %s stream', (dtype) => {
  test('is filled and returned', async () => {
    const data = makeData(dtype);
    const fresh = newStream(dtype);
    const wanted = bytesOf(fresh.attendSync(data));
    const read = bytesOf(fresh.retrieveSync({ q: data.q }));

    const [sync, async] = [newStream(dtype), newStream(dtype)];
    const outs = Array.from({ length: 4 }, () => poisoned(dtype, 72));
    expect(sync.attendSync(data, { out: outs[0] })).toBe(outs[0]);
    expect(await async.attend(data, { out: outs[1] })).toBe(outs[1]);
    expect(sync.retrieveSync({ q: data.q }, { out: outs[2] })).toBe(outs[2]);
    expect(await async.retrieve({ q: data.q }, { out: outs[3] })).toBe(outs[3]);
    expect(outs.map((out) => bytesOf(out).equals(outs.indexOf(out) < 2 ? wanted : read))).toEqual([
      true,
      true,
      true,
      true,
    ]);
    for (const stream of [fresh, sync, async]) stream.close();
  });

  test('takes nothing outside its view', () => {
    const Class = dtype === 'float32' ? Float32Array : Uint16Array;
    const around = poisoned(dtype, 100);
    const out = new Class(around.buffer as ArrayBuffer, 8 * Class.BYTES_PER_ELEMENT, 72) as Tensor;
    const [stream, fresh] = [newStream(dtype), newStream(dtype)];
    const data = makeData(dtype);
    stream.attendSync(data, { out });
    expect(bytesOf(out)).toEqual(bytesOf(fresh.attendSync(data)));
    const margin = [...around.slice(0, 8), ...around.slice(80)];
    expect(margin).toEqual([...poisoned(dtype, 28)]);
    stream.close();
    fresh.close();
  });

  test.each(['q', 'k', 'v'] as const)('may be %s itself, or overlap it', async (name) => {
    const wanted = bytesOf(newStream(dtype).attendSync(makeData(dtype)));
    for (const how of ['sync', 'async']) {
      for (const shift of [0, 1, 24]) {
        const data = makeData(dtype);
        const room = poisoned(dtype, 72 + shift);
        const [source, out] = [room.subarray(0, 72), room.subarray(shift)];
        source.set(data[name]);
        const stream = newStream(dtype);
        const input = { ...data, [name]: source };
        const output =
          how === 'sync' ? stream.attendSync(input, { out }) : await stream.attend(input, { out });
        expect(output).toBe(out);
        expect(bytesOf(out)).toEqual(wanted);
        stream.close();
      }
    }
  });
});

test('retrieval may write over its own queries', async () => {
  const stream = newStream();
  const { q } = makeData();
  const wanted = bytesOf(stream.retrieveSync({ q }));
  const [first, second] = [q.slice(), q.slice()];
  stream.retrieveSync({ q: first }, { out: first });
  await stream.retrieve({ q: second }, { out: second });
  expect([bytesOf(first), bytesOf(second)]).toEqual([wanted, wanted]);
  stream.close();
});

test('is filled just before the promise resolves, not earlier', async () => {
  const stream = device.createStream({ heads: 4, headDim: 64, segmentLength: 256 });
  const { q, k, v } = makeInput(stream.config, 600, new Rng(1));
  const out = poisoned('float32', 600 * 256) as Float32Array;
  const promise = stream.attend({ q: q.data, k: k.data, v: v.data }, { out });
  const until = Date.now() + 200;
  while (Date.now() < until); // the work may well be done by now
  expect(out.every(Number.isNaN)).toBe(true);
  await promise;
  expect(out.some(Number.isNaN)).toBe(false);
  stream.close();
});

test('that was detached meanwhile is replaced by a fresh array', async () => {
  const [stream, fresh] = [newStream(), newStream()];
  const data = makeData();
  const out = poisoned('float32', 72);
  const promise = stream.attend(data, { out });
  const moved = structuredClone(out, { transfer: [out.buffer as ArrayBuffer] });
  const output = await promise;
  expect(out.length).toBe(0);
  expect(output).not.toBe(out);
  expect(output).toBeInstanceOf(Float32Array);
  expect(bytesOf(output)).toEqual(bytesOf(fresh.attendSync(data)));
  expect(moved.every(Number.isNaN)).toBe(true);
  expect(stream.tokens).toBe(fresh.tokens);

  const again = poisoned('float32', 72);
  const reading = stream.retrieve({ q: data.q }, { out: again });
  structuredClone(again, { transfer: [again.buffer as ArrayBuffer] });
  expect(bytesOf(await reading)).toEqual(bytesOf(fresh.retrieveSync({ q: data.q })));
  stream.close();
  fresh.close();
});

test.each([
  ['a plain array', new Array(72).fill(7), 'ERR_INVALID_ARG_TYPE', 'typed array'],
  ['a number', 72, 'ERR_INVALID_ARG_TYPE', 'typed array'],
  ['null', null, 'ERR_INVALID_ARG_TYPE', 'typed array'],
  ['a DataView', new DataView(new ArrayBuffer(288)), 'ERR_INVALID_ARG_TYPE', 'typed array'],
  ['a Uint16Array', new Uint16Array(72), 'ERR_DTYPE', 'Float32Array'],
  ['a Float64Array', new Float64Array(72), 'ERR_DTYPE', 'Float32Array'],
  ['a Buffer', Buffer.alloc(288), 'ERR_DTYPE', 'Float32Array'],
  ['a shared array', new Float32Array(new SharedArrayBuffer(288)), 'ERR_INVALID_ARG_TYPE', 'shared'],
  ['a resizable array', new Float32Array(resizable(288)), 'ERR_INVALID_ARG_TYPE', 'resizable'],
  [
    'a fixed view of a resizable buffer',
    new Float32Array(resizable(576), 0, 72),
    'ERR_INVALID_ARG_TYPE',
    'resizable',
  ],
])('as %s is refused', async (_, out, code, says) => {
  const stream = newStream();
  const data = makeData();
  await expectRefused(stream, 'attend', data, { code, says: ['options.out', says] }, { out });
  await expectRefused(stream, 'retrieve', { q: data.q }, { code, says: ['options.out', says] }, { out });
  stream.close();
});

test('left undefined gives a fresh array each time', () => {
  const stream = newStream();
  const { q } = makeData();
  const [first, second] = [stream.retrieveSync({ q }, { out: undefined }), stream.retrieveSync({ q })];
  expect(first).toEqual(second);
  expect(first).not.toBe(second);
  expect(first.buffer).not.toBe(second.buffer);
  expect(first.byteOffset).toBe(0);
  expect(first.buffer.byteLength).toBe(288);
  stream.close();
});

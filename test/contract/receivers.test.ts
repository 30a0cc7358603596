import { Batch, Device, DeviceTensor, MemoryStream, Recorder } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject, expectThrow, type Failure } from '../support/failures';

/** Streams, devices, tensors and batches are made by this package alone, and its methods work on them alone. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const TYPE: Failure = { code: 'ERR_INVALID_ARG_TYPE' };
type AnyClass = new (...args: unknown[]) => object;

describe.each([
  ['MemoryStream', MemoryStream, /createStream/],
  ['Device', Device, /openDevice/],
  ['DeviceTensor', DeviceTensor, /device\.tensor/],
  ['Batch', Batch, /createBatch/],
  ['Recorder', Recorder, /createRecorder/],
])('%s', (_, Class, says) => {
  const Constructor = Class as unknown as AnyClass;

  test('can not be constructed, derived from, or made from another by its constructor', () => {
    const stream = device.createStream({ heads: 1, headDim: 1 });
    const refused = { ...TYPE, says: [says] };
    for (const args of [[], [{}], [Symbol('x'), {}], [device, { heads: 1, headDim: 1 }], ['cpu'], [stream]]) {
      expectThrow(() => new Constructor(...args), refused);
      expectThrow(() => Reflect.construct(Constructor, args), refused);
      expectThrow(() => new (class extends Constructor {})(...args), refused);
    }
    expect(stream.closed).toBe(false);
    stream.close();
  });
});

const members = (Class: { prototype: object }) =>
  Reflect.ownKeys(Class.prototype)
    .filter((name) => name !== 'constructor' && name !== Symbol.toStringTag)
    .map((name) => {
      const { get, value } = Object.getOwnPropertyDescriptor(Class.prototype, name) as PropertyDescriptor;
      return [String(name), (get ?? value) as (...args: unknown[]) => unknown] as const;
    });

const asynchronous = ['attend', 'retrieve', 'snapshot', 'restore', 'attendBatch', 'read', 'step', 'absorb'];

describe.each([
  ['MemoryStream', MemoryStream, 17],
  ['Device', Device, 11],
  ['DeviceTensor', DeviceTensor, 8],
  ['Batch', Batch, 7],
  ['Recorder', Recorder, 6],
])('every member of %s', (_, Class, count) => {
  test('refuses other receivers', async () => {
    const stream = device.createStream({ heads: 1, headDim: 1 });
    const recorder = device.createRecorder({ heads: 1, headDim: 1 });
    const objects = [stream, device, device.tensor([1], 'float32'), device.createBatch([stream]), recorder];
    const [same, other] = [0, 1].map((i) => objects.filter((one) => one instanceof Class === (i === 0))[0]);
    const receivers: [string, unknown][] = [
      ['undefined', undefined],
      ['null', null],
      ['a number', 5],
      ['an object', {}],
      ['an object with the prototype', Object.create(Class.prototype)],
      ['a proxy', new Proxy(same, {})],
      ['a derived object', Object.create(same)],
      ['the prototype', Class.prototype],
      ['the other class', other],
    ];
    const found = members(Class as { prototype: object });
    expect(found.length).toBeGreaterThanOrEqual(count);
    const input = { q: new Float32Array(1), k: new Float32Array(1), v: new Float32Array(1) };
    for (const [name, member] of found) {
      for (const [, receiver] of receivers) {
        const call = () => member.call(receiver, input);
        if (asynchronous.includes(name)) await expectReject(call as () => Promise<unknown>, TYPE);
        else expectThrow(call, TYPE);
      }
    }
    expect([stream.closed, stream.tokens]).toEqual([false, 0]);
    expect(objects.filter((one) => 'closed' in one && one.closed)).toEqual([]);
    for (const one of objects) if (one !== device) one.close();
  });
});

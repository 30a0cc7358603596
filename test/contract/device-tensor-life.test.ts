import type { Device, DeviceTensor } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject, expectThrow } from '../support/failures';
import { busyStream } from '../support/front';

/** Device tensors are made, or refused, and closed. What calls do with them: device-tensors.test.ts. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

type AnyTensor = (...args: unknown[]) => DeviceTensor;
const make = ((...args) => (device.tensor as unknown as AnyTensor).apply(device, args)) as AnyTensor;

describe('device.tensor refuses', () => {
  const TYPE = 'ERR_INVALID_ARG_TYPE';
  const RANGE = 'ERR_OUT_OF_RANGE';
  test.each<[string, unknown[], string, string]>([
    ['no shape', [], TYPE, 'shape'],
    ['a number as shape', [4, 'float32'], TYPE, 'shape'],
    ['a typed array as shape', [Uint32Array.of(4), 'float32'], TYPE, 'shape'],
    ['an empty shape', [[], 'float32'], RANGE, 'shape'],
    ['nine dimensions', [Array(9).fill(1), 'float32'], RANGE, 'shape'],
    ['a hole', [new Array(2), 'float32'], TYPE, 'shape[0]'],
    ['a string in it', [[1, '2'], 'float32'], TYPE, 'shape[1]'],
    ['a bigint in it', [[1n], 'float32'], TYPE, 'shape[0]'],
    ['zero', [[1, 0], 'float32'], RANGE, 'shape[1]'],
    ['a negative size', [[-1], 'float32'], RANGE, 'shape[0]'],
    ['a fraction', [[1.5], 'float32'], RANGE, 'shape[0]'],
    ['NaN', [[Number.NaN], 'float32'], RANGE, 'shape[0]'],
    ['Infinity', [[Number.POSITIVE_INFINITY], 'float32'], RANGE, 'shape[0]'],
    ['more than can be counted', [[2 ** 30, 2 ** 30], 'float32'], RANGE, 'shape'],
    ['no dtype', [[4]], TYPE, 'dtype'],
    ['another dtype', [[4], 'float64'], RANGE, 'dtype'],
    ['data that is none', [[4], 'float32', [1, 2, 3, 4]], TYPE, 'data'],
    ['null as data', [[4], 'float32', null], TYPE, 'data'],
    ['data of another class', [[4], 'float32', new Uint16Array(4)], 'ERR_DTYPE', 'data'],
    ['data of another class', [[4], 'float16', new Float32Array(4)], 'ERR_DTYPE', 'data'],
    ['too much data', [[4], 'float32', new Float32Array(5)], 'ERR_SHAPE', 'data'],
    ['too little data', [[4, 2], 'float32', new Float32Array(7)], 'ERR_SHAPE', 'data'],
  ])('%s', (_, args, code, says) => {
    const { tensorBytes } = device.stats();
    expectThrow(() => make(...args), { code, says: [says] });
    expect(device.stats().tensorBytes).toBe(tensorBytes);
  });

  test('more than there is, and goes on', () => {
    const { tensorBytes } = device.stats();
    for (const size of [2 ** 45, 2 ** 50])
      expectThrow(() => device.tensor([size], 'float32'), { code: 'ERR_OUT_OF_MEMORY' });
    expect(device.stats().tensorBytes).toBe(tensorBytes);
    device.tensor([4], 'float32').close();
  });

  test('write() what it would have refused as data', () => {
    const tensor = device.tensor([2, 2], 'bfloat16');
    for (const [data, code] of [
      [undefined, TYPE],
      [[1, 2, 3, 4], TYPE],
      [new DataView(new ArrayBuffer(8)), TYPE],
      [new Float32Array(4), 'ERR_DTYPE'],
      [new Int16Array(4), 'ERR_DTYPE'],
      [new Uint16Array(3), 'ERR_SHAPE'],
      [new Uint16Array(0), 'ERR_SHAPE'],
    ] as const)
      expectThrow(() => tensor.write(data as never), { code, says: ['data'] });
    tensor.close();
  });
});

test('a tensor serves every handle on its device', () => {
  const other = openTestDevice();
  const stream = other.createStream({ heads: 1, headDim: 2 });
  const tensor = device.tensor([1, 1, 2], 'float32', Float32Array.of(1, 2));
  expect(stream.attendSync({ q: tensor, k: tensor, v: tensor }).length).toBe(2);
  other.close();
  expect(tensor.closed).toBe(false);
  tensor.close();
});

describe('closing', () => {
  test('frees the memory at once; what it was can still be read, its contents not', async () => {
    const before = device.stats().tensorBytes;
    const tensor = device.tensor([1 << 16], 'float32');
    expect(device.stats().tensorBytes - before).toBe(1 << 18);
    tensor.close();
    expect(device.stats().tensorBytes).toBe(before);
    const closed = { code: 'ERR_CLOSED' };
    expectThrow(() => tensor.write(new Float32Array(1 << 16)), closed);
    expectThrow(() => tensor.write(5 as never), closed);
    await expectReject(() => tensor.read(), closed);
    expect([tensor.closed, tensor.byteLength, tensor.shape, tensor.dtype]).toEqual([
      true,
      1 << 18,
      [1 << 16],
      'float32',
    ]);
    tensor.close();
    tensor[Symbol.dispose]();
  });

  test('a device closes its tensors, not those of another handle; pending reads end well', async () => {
    const [first, second] = [openTestDevice(), openTestDevice()];
    const mine = first.tensor([1000], 'float32', new Float32Array(1000).fill(3));
    const other = second.tensor([4], 'float32');
    const reading = mine.read();
    first.close();
    expect([mine.closed, other.closed]).toEqual([true, false]);
    expect((await reading).every((x) => x === 3)).toBe(true);
    const closed = { code: 'ERR_CLOSED', says: ['device'] };
    expectThrow(() => first.tensor([4], 'float32'), closed);
    expectThrow(() => first.tensor(5 as never, 5 as never), closed);
    other.write(new Float32Array(4));
    second.close();
  });

  test('a device in mid-call rejects the call and closes its tensors', async () => {
    const own = openTestDevice();
    const before = own.stats().tensorBytes;
    const { stream } = busyStream(own);
    const shape = [1024, 8, stream.config.headDim];
    const [input, out] = [own.tensor(shape, 'float32'), own.tensor(shape, 'float32')];
    const pending = stream.attend({ q: input, k: input, v: input }, { out });
    own.close();
    await expectReject(() => pending, { code: 'ERR_CLOSED' });
    expect([input.closed, out.closed]).toEqual([true, true]);
    const start = Date.now();
    while (device.stats().tensorBytes > before && Date.now() - start < 5000)
      await new Promise((resolve) => setTimeout(resolve, 5)); // the thread that worked on it lets go of it
    expect(device.stats().tensorBytes).toBeLessThanOrEqual(before);
  });

  test('`using` closes', () => {
    let seen: DeviceTensor | undefined;
    {
      using tensor = device.tensor([4], 'float32');
      seen = tensor;
      expect(seen.closed).toBe(false);
    }
    expect(seen.closed).toBe(true);
  });
});

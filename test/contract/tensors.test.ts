import type { Device, MemoryStream, Tensor } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectRefused, withHistory } from '../support/refusals';
import { bytesOf } from '../support/tensors';

/** What may be given as q, k and v. One head of two numbers: a token is two elements of each tensor. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const TYPE = 'ERR_INVALID_ARG_TYPE';
const newStream = (dtype: 'float32' | 'float16' = 'float32') =>
  device.createStream({ heads: 1, headDim: 2, segmentLength: 4, dtype });

const good = () => Float32Array.of(1, 2, 3, 4);
const resizable = (bytes: number, max: number) =>
  new (ArrayBuffer as new (length: number, options: { maxByteLength: number }) => ArrayBuffer)(bytes, {
    maxByteLength: max,
  });

describe.each(['q', 'k', 'v'])('input.%s', (name) => {
  let stream: MemoryStream;
  beforeEach(() => {
    stream = withHistory(newStream());
  });
  afterEach(() => stream.close());
  const refuse = async (value: unknown, code: string, says: (string | RegExp)[]) => {
    const failure = { code, says: [`input.${name}`, ...says] };
    await expectRefused(stream, 'attend', { q: good(), k: good(), v: good(), [name]: value }, failure);
    if (name === 'q') await expectRefused(stream, 'retrieve', { q: value }, failure);
  };

  test.each([
    ['undefined', undefined, 'undefined'],
    ['null', null, 'null'],
    ['a number', 4, '4'],
    ['a string', '1234', "'1234'"],
    ['a plain array', [1, 2, 3, 4], 'an array'],
    ['a DataView', new DataView(new ArrayBuffer(16)), 'DataView'],
    ['an ArrayBuffer', new ArrayBuffer(16), 'an object'],
    ['an object in the shape of an array', { length: 4, 0: 1, 1: 2, 2: 3, 3: 4 }, 'an object'],
    ['an object with the prototype of one', Object.create(Float32Array.prototype), 'an object'],
    ['a proxy of one', new Proxy(good(), {}), 'an object'],
  ])('as %s is a wrong type', async (_, value, came) => {
    await refuse(value, TYPE, ['typed array', came]);
  });

  test('left out is a wrong type', async () => {
    const { [name as 'q']: _, ...rest } = { q: good(), k: good(), v: good() };
    await expectRefused(stream, 'attend', rest, { code: TYPE, says: [`input.${name}`, 'undefined'] });
  });

  test.each([
    ['Float64Array', Float64Array],
    ['Uint16Array', Uint16Array],
    ['Int32Array', Int32Array],
    ['Uint8Array', Uint8Array],
    ['BigInt64Array', BigInt64Array],
  ] as const)('as a %s is the wrong class', async (className, Class) => {
    await refuse(new Class(4), 'ERR_DTYPE', ['Float32Array', 'float32', className]);
  });

  test('as a Buffer is the wrong class', async () => {
    await refuse(Buffer.alloc(16), 'ERR_DTYPE', ['Float32Array', 'Uint8Array']);
  });

  test('as a Float32Array in a 16-bit stream is the wrong class', async () => {
    const half = withHistory(newStream('float16'));
    const zeros = () => new Uint16Array(4);
    const input = { q: zeros(), k: zeros(), v: zeros(), [name]: good() };
    const says = [`input.${name}`, 'Uint16Array', 'float16', 'Float32Array'];
    await expectRefused(half, 'attend', input, { code: 'ERR_DTYPE', says });
    await expectRefused(
      half,
      'attend',
      { ...input, [name]: new Int16Array(4) },
      { code: 'ERR_DTYPE', says: ['Int16Array'] },
    );
    half.close();
  });

  test('that is empty, or detached, has the wrong shape', async () => {
    await refuse(new Float32Array(0), 'ERR_SHAPE', ['0 elements']);
    const detached = good();
    structuredClone(detached, { transfer: [detached.buffer] });
    await refuse(detached, 'ERR_SHAPE', ['0 elements']);
  });

  test('of a resizable buffer that has shrunk below it has the wrong shape', async () => {
    const buffer = resizable(16, 32);
    const view = new Float32Array(buffer, 0, 4);
    (buffer as unknown as { resize(bytes: number): void }).resize(8);
    await refuse(view, 'ERR_SHAPE', ['0 elements']);
  });
});

describe('accepted with the same result as an ordinary array are', () => {
  const numbers = [0.5, -1, 2, 0.25];
  const wanted = () => {
    const stream = newStream();
    const tensor = Float32Array.from(numbers);
    const output = bytesOf(stream.attendSync({ q: tensor, k: tensor, v: tensor }));
    stream.close();
    return output;
  };

  const fill = (array: Float32Array) => {
    array.set(numbers);
    return array;
  };

  const offset = () => fill(new Float32Array(new ArrayBuffer(40), 12, 4));
  const shared = () => fill(new Float32Array(new SharedArrayBuffer(16)));
  const sharedOffset = () => fill(new Float32Array(new SharedArrayBuffer(64), 4, 4));
  const fixed = () => fill(new Float32Array(resizable(16, 64), 0, 4));
  const tracking = () => fill(new Float32Array(resizable(16, 64)));
  const derived = () => fill(new (class Mine extends Float32Array {})(4));
  const disguised = () =>
    Object.defineProperties(fill(new Float32Array(4)), {
      length: { value: 1e9 },
      buffer: { value: null },
      [Symbol.toStringTag]: { value: 'Uint8Array' },
      constructor: { value: Uint8Array },
    });

  test.each([
    ['views at an offset', offset],
    ['shared arrays', shared],
    ['shared views at an offset', sharedOffset],
    ['views of resizable buffers', fixed],
    ['length-tracking views of resizable buffers', tracking],
    ['arrays of a derived class', derived],
    ['arrays with properties that lie about them', disguised],
  ])('%s', async (_, make: () => Tensor) => {
    const [first, second] = [newStream(), newStream()];
    const input = () => ({ q: make(), k: make(), v: make() });
    expect(bytesOf(first.attendSync(input()))).toEqual(wanted());
    expect(bytesOf(await second.attend(input()))).toEqual(wanted());
    expect(bytesOf(first.memory().matrix)).toEqual(bytesOf(second.memory().matrix));
    const absorbed = withHistory(newStream());
    const read = bytesOf(absorbed.retrieveSync({ q: Float32Array.from(numbers) }));
    expect(bytesOf(absorbed.retrieveSync({ q: make() }))).toEqual(read);
    expect(bytesOf(await absorbed.retrieve({ q: make() }))).toEqual(read);
    for (const stream of [first, second, absorbed]) stream.close();
  });

  test('one array as q, k and v at once', () => {
    const stream = newStream();
    const tensor = Float32Array.from(numbers);
    const output = stream.attendSync({ q: tensor, k: tensor, v: tensor });
    expect(bytesOf(output)).toEqual(wanted());
    expect([...tensor]).toEqual(numbers);
    stream.close();
  });
});

test('the inputs belong to the caller again as soon as attend returns', async () => {
  const big = 4096;
  const config = { heads: 2, headDim: 16, segmentLength: 64 };
  const make = () => Float32Array.from({ length: big * 32 }, (_, i) => Math.sin(i));
  const [careful, careless] = [device.createStream(config), device.createStream(config)];
  const wanted = await careful.attend({ q: make(), k: make(), v: make() });
  const [q, k, v] = [make(), make(), make()];
  const promise = careless.attend({ q, k, v });
  q.fill(Number.NaN);
  structuredClone(k, { transfer: [k.buffer] });
  v.fill(7);
  expect(bytesOf(await promise).equals(bytesOf(wanted))).toBe(true);
  expect(bytesOf(careless.memory().matrix)).toEqual(bytesOf(careful.memory().matrix));
  careful.close();
  careless.close();
});

test('the input and options arguments are objects with known keys', async () => {
  const stream = withHistory(newStream());
  const input = { q: good(), k: good(), v: good() };
  for (const wrong of [undefined, null, 5, 'x', [good(), good(), good()], good(), () => input]) {
    await expectRefused(stream, 'attend', wrong, { code: TYPE, says: ['input', 'object'] });
    await expectRefused(stream, 'retrieve', wrong, { code: TYPE, says: ['input', 'object'] });
  }
  await expectRefused(
    stream,
    'attend',
    { ...input, mask: good() },
    { code: TYPE, says: ['input', "'mask'"] },
  );
  await expectRefused(stream, 'retrieve', { q: good(), k: good() }, { code: TYPE, says: ['input', "'k'"] });
  for (const options of [null, 5, 'x', [], good()]) {
    await expectRefused(stream, 'attend', input, { code: TYPE, says: ['options', 'object'] }, options);
    await expectRefused(
      stream,
      'retrieve',
      { q: good() },
      { code: TYPE, says: ['options', 'object'] },
      options,
    );
  }
  await expectRefused(
    stream,
    'attend',
    input,
    { code: TYPE, says: ['options', "'output'"] },
    { output: good() },
  );
  stream.close();
});

import { type Device, DeviceTensor, type MemoryStream, type Tensor } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject, expectThrow } from '../support/failures';
import { busyStream } from '../support/front';
import { dataOf, makeInput } from '../support/inputs';
import { withHistory } from '../support/refusals';
import { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { stateOf } from '../support/state';
import { bytesOf, DTYPES, emptyTensor, makeTensor, poisoned } from '../support/tensors';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const shape = { heads: 4, kvHeads: 2, headDim: 6, valueDim: 5, segmentLength: 8 };
const TOKENS = 11;
const shapes = {
  q: [TOKENS, 4, 6],
  k: [TOKENS, 2, 6],
  v: [TOKENS, 2, 5],
  out: [TOKENS, 4, 5],
} as const;
const newStream = (dtype: (typeof DTYPES)[number] = 'float32') =>
  withHistory(device.createStream({ ...shape, dtype }));
const inputFor = (stream: MemoryStream, rng: Rng) => dataOf(makeInput(stream.config, TOKENS, rng));
const numbers = (dtype: (typeof DTYPES)[number], length: number, rng: Rng) =>
  makeTensor(
    dtype,
    Float64Array.from({ length }, () => rng.normal()),
  ).data;

describe.each(DTYPES)('a %s tensor', (dtype) => {
  seededTest('holds what was written, and gives copies', async (rng) => {
    const data = numbers(dtype, 24, rng);
    const wanted = data.slice();
    const tensor = device.tensor([2, 3, 4], dtype, data);
    expect(tensor).toBeInstanceOf(DeviceTensor);
    expect([tensor.shape, tensor.dtype, tensor.byteLength, tensor.closed]).toEqual([
      [2, 3, 4],
      dtype,
      24 * data.BYTES_PER_ELEMENT,
      false,
    ]);
    expect(Object.isFrozen(tensor.shape)).toBe(true);
    data.fill(0);
    const [first, second] = await Promise.all([tensor.read(), tensor.read()]);
    expect(first).not.toBe(second);
    expect(first.constructor).toBe(data.constructor);
    expect([bytesOf(first), bytesOf(second)]).toEqual([bytesOf(wanted), bytesOf(wanted)]);
    first.fill(0);
    const next = numbers(dtype, 24, rng);
    expect(tensor.write(next)).toBeUndefined();
    const nextWanted = next.slice();
    next.fill(0);
    expect(bytesOf(await tensor.read())).toEqual(bytesOf(nextWanted));
    tensor.close();
  });

  test('is zero without data', async () => {
    const tensor = device.tensor([1000], dtype);
    expect(bytesOf(await tensor.read()).every((byte) => byte === 0)).toBe(true);
    tensor.close();
  });

  seededTest('is what calls take, in any place, with the same bits', async (rng) => {
    for (let mask = 0; mask < 16; mask++) {
      const [plain, sync, async] = [newStream(dtype), newStream(dtype), newStream(dtype)];
      const input = inputFor(plain, rng);
      const wanted = bytesOf(plain.attendSync(input));
      const read = bytesOf(plain.retrieveSync({ q: input.q }));
      const tensors: DeviceTensor[] = [];
      const keep = (tensor: DeviceTensor) => {
        tensors.push(tensor);
        return tensor;
      };
      const place = (name: 'q' | 'k' | 'v', bit: number) =>
        mask & bit ? keep(device.tensor(shapes[name], dtype, input[name])) : input[name];
      const out = () =>
        mask & 8 ? keep(device.tensor(shapes.out, dtype, poisoned(dtype, 220))) : poisoned(dtype, 220);
      const given = { q: place('q', 1), k: place('k', 2), v: place('v', 4) };
      const outs = [out(), out(), out(), out()];
      expect(sync.attendSync(given, { out: outs[0] })).toBe(outs[0]);
      expect(await async.attend(given, { out: outs[1] })).toBe(outs[1]);
      expect(sync.retrieveSync({ q: given.q }, { out: outs[2] })).toBe(outs[2]);
      expect(await async.retrieve({ q: given.q }, { out: outs[3] })).toBe(outs[3]);
      for (const [i, result] of outs.entries()) {
        const found = result instanceof DeviceTensor ? await result.read() : result;
        expect(bytesOf(found).equals(i < 2 ? wanted : read)).toBe(true);
      }
      expect([stateOf(sync), stateOf(async)]).toEqual([stateOf(plain), stateOf(plain)]);
      for (const one of [plain, sync, async, ...tensors]) one.close();
    }
  });

  seededTest('given as out is untouched by a call that fails', async (rng) => {
    const stream = newStream(dtype);
    const input = inputFor(stream, rng);
    const before = numbers(dtype, 220, rng);
    const out = device.tensor(shapes.out, dtype, before);
    const state = stateOf(stream);
    const nan = dtype === 'float32' ? Number.NaN : dtype === 'float16' ? 0x7e00 : 0x7fc0;
    input.v[input.v.length - 1] = nan;
    const v = device.tensor(shapes.v, dtype, input.v);
    const failure = { code: 'ERR_NON_FINITE', tensor: 'v', token: TOKENS - 1 };
    for (const bad of [input, { ...input, v }]) {
      expectThrow(() => stream.attendSync(bad, { out }), failure);
      await expectReject(() => stream.attend(bad, { out }), failure);
      expect(bytesOf(await out.read()).equals(bytesOf(before))).toBe(true);
    }
    expect(stateOf(stream)).toEqual(state);
    for (const one of [stream, out, v]) one.close();
  });
});

test('an output is the next call’s input', async () => {
  const config = { heads: 2, headDim: 4, segmentLength: 3 };
  const [layers, plain] = [0, 1].map(() => [0, 1, 2].map(() => device.createStream(config)));
  const row = Float32Array.from({ length: 40 }, (_, i) => Math.sin(i));
  let tensor = device.tensor([5, 2, 4], 'float32', row);
  let array: Tensor = row;
  for (const [i, layer] of layers.entries()) {
    const out = device.tensor([5, 2, 4], 'float32');
    tensor = await layer.attend({ q: tensor, k: tensor, v: tensor }, { out });
    array = plain[i].attendSync({ q: array, k: array, v: array });
  }
  expect(bytesOf(await tensor.read())).toEqual(bytesOf(array));
  for (const stream of [...layers, ...plain]) stream.close();
});

describe('while a call is pending', () => {
  const busy = { code: 'ERR_BUSY' };

  /** A call that waits behind a long one, so that it is pending for as long as a test looks. */
  function pendingCall({ fail = false, signal }: { fail?: boolean; signal?: AbortSignal } = {}) {
    const { stream, front } = busyStream(device);
    const shape = [3, 8, stream.config.headDim];
    const data = new Float32Array(3 * 8 * stream.config.headDim).fill(0.5);
    if (fail) data[data.length - 1] = Number.NaN;
    const input = device.tensor(shape, 'float32', data);
    const out = device.tensor(shape, 'float32');
    const pending = stream.attend({ q: input, k: input, v: input }, { out, signal });
    return { stream, data, input, out, front, pending };
  }

  test('its tensors can be neither written nor closed, and its out not used at all', async () => {
    const { stream, data, input, out, pending } = pendingCall();
    const other = device.createStream(stream.config);
    for (const tensor of [input, out]) {
      expectThrow(() => tensor.write(data), busy);
      expectThrow(() => tensor.close(), busy);
      expectThrow(() => tensor[Symbol.dispose](), busy);
      expect(tensor.closed).toBe(false);
      const plain = { q: data, k: data, v: data };
      expectThrow(() => other.attendSync(plain, { out: tensor }), { ...busy, says: ['options.out'] });
      await expectReject(() => other.attend(plain, { out: tensor }), busy);
      await expectReject(() => other.retrieve({ q: data }, { out: tensor }), busy);
      expectThrow(() => other.retrieveSync({ q: data }, { out: tensor }), busy);
    }
    await expectReject(() => out.read(), busy);
    for (const name of ['q', 'k', 'v']) {
      const using = { q: data, k: data, v: data, [name]: out };
      expectThrow(() => other.attendSync(using), { ...busy, says: [`input.${name}`] });
      await expectReject(() => other.attend(using), busy);
    }
    expect(other.tokens).toBe(0);
    expect(await pending).toBe(out);
    for (const tensor of [input, out]) {
      tensor.write(data);
      tensor.close();
      tensor.close();
      expect(tensor.closed).toBe(true);
    }
    for (const one of [stream, other]) one.close();
  });

  test('its inputs can be read, by read() and by other calls', async () => {
    const { stream, data, input, out, pending } = pendingCall();
    const other = device.createStream(stream.config);
    const twin = device.createStream(stream.config);
    const reading = input.read();
    const second = other.attend({ q: input, k: input, v: input });
    expectThrow(() => input.close(), busy);
    expect(bytesOf(await reading).equals(bytesOf(data))).toBe(true);
    const wanted = bytesOf(twin.attendSync({ q: data, k: data, v: data }));
    expect(bytesOf(await second).equals(wanted)).toBe(true);
    await pending;
    expect((await out.read()).every(Number.isFinite)).toBe(true);
    for (const one of [stream, other, twin, input, out]) one.close();
  });

  const controller = new AbortController();
  test.each<[string, object, (stream: MemoryStream) => void, string]>([
    ['fails', { fail: true }, () => {}, 'ERR_NON_FINITE'],
    ['is cut off by close()', {}, (stream) => stream.close(), 'ERR_CLOSED'],
    ['is aborted', { signal: controller.signal }, () => controller.abort(), 'ABORT_ERR'],
  ])(
    'that %s, its tensors are free when it has settled, and not before',
    async (_, options, interfere, code) => {
      const { stream, data, input, out, pending } = pendingCall(options);
      interfere(stream);
      for (const tensor of [input, out]) expectThrow(() => tensor.close(), busy);
      await expect(pending).rejects.toMatchObject({ code });
      for (const tensor of [input, out]) {
        tensor.write(data);
        tensor.close();
      }
      stream.close();
    },
  );

  test('read() leases the tensor too', async () => {
    const tensor = device.tensor([64], 'float32');
    const reading = tensor.read();
    expectThrow(() => tensor.write(new Float32Array(64)), busy);
    expectThrow(() => tensor.close(), busy);
    await reading;
    tensor.close();
  });
});

test('one tensor may be q, k and v of a call, but not its out as well', async () => {
  const stream = device.createStream({ heads: 1, headDim: 4, segmentLength: 16 });
  const tensor = device.tensor([8, 1, 4], 'float32', new Float32Array(32).fill(1));
  const out = device.tensor([8, 1, 4], 'float32');
  const input = { q: tensor, k: tensor, v: tensor };
  expectThrow(() => stream.attendSync(input, { out: tensor }), { code: 'ERR_BUSY', says: ['options.out'] });
  await expectReject(() => stream.attend(input, { out: tensor }), { code: 'ERR_BUSY' });
  expect(stream.tokens).toBe(0);
  tensor.write(new Float32Array(32).fill(2)); // the refused calls have let go of it
  stream.attendSync(input, { out });
  for (const x of await out.read()) expect(x).toBeCloseTo(1, 6); // (1 - g) of 2
  for (const one of [stream, tensor, out]) one.close();
});

describe('calls refuse', () => {
  test('a closed tensor, and say which it is', async () => {
    const stream = newStream();
    const state = stateOf(stream);
    const data = dataOf(makeInput(stream.config, TOKENS, new Rng(1)));
    for (const name of ['q', 'k', 'v', 'out'] as const) {
      const tensor = device.tensor(shapes[name], 'float32');
      tensor.close();
      const input = name === 'out' ? data : { ...data, [name]: tensor };
      const options = name === 'out' ? { out: tensor } : {};
      const closed = { code: 'ERR_CLOSED', says: [name === 'out' ? 'options.out' : `input.${name}`] };
      expectThrow(() => stream.attendSync(input, options), closed);
      await expectReject(() => stream.attend(input, options), closed);
    }
    expect(stateOf(stream)).toEqual(state);
    stream.close();
  });

  seededTest('tensors of another dtype or shape, by name', async (rng) => {
    const stream = newStream();
    const state = stateOf(stream);
    const data = inputFor(stream, rng);
    const wrong: [Partial<Record<'q' | 'k' | 'v' | 'out', DeviceTensor>>, string, string][] = [];
    for (const name of ['q', 'k', 'v', 'out'] as const) {
      const [tokens, heads, dim] = shapes[name];
      const full = name === 'out' ? 'options.out' : `input.${name}`;
      wrong.push([{ [name]: device.tensor(shapes[name], 'float16') }, 'ERR_DTYPE', full]);
      wrong.push([{ [name]: device.tensor([heads, tokens, dim], 'float32') }, 'ERR_SHAPE', full]);
      wrong.push([{ [name]: device.tensor([tokens, dim, heads], 'float32') }, 'ERR_SHAPE', full]);
      if (name !== 'q')
        wrong.push([{ [name]: device.tensor([tokens + 1, heads, dim], 'float32') }, 'ERR_SHAPE', full]);
    }
    wrong.push([{ q: device.tensor([5], 'float32') }, 'ERR_SHAPE', 'input.q']);
    for (const [{ out, ...tensors }, code, says] of wrong) {
      const call = { ...data, ...tensors };
      expectThrow(() => stream.attendSync(call, { out }), { code, says: [says] });
      await expectReject(() => stream.attend(call, { out }), { code, says: [says] });
    }
    expect(wrong.length).toBe(16);
    expect(stateOf(stream)).toEqual(state);
    stream.close();
  });

  test('in the order of the contract: types, closed tensors, dtype, shape, signal, leases, values', async () => {
    const { stream, front } = busyStream(device);
    const { headDim } = stream.config;
    const row = () => new Float32Array(8 * headDim);
    const out = device.tensor([8 * headDim], 'float32');
    const pending = stream.attend({ q: row(), k: row(), v: row() }, { out });
    const closed = device.tensor([8 * headDim], 'float32');
    closed.close();
    const aborted = AbortSignal.abort();
    const nan = row().fill(Number.NaN);
    const faults: [string, object, object][] = [
      ['ERR_INVALID_ARG_TYPE', { k: 5 }, {}],
      ['ERR_CLOSED', { q: closed }, {}],
      ['ERR_DTYPE', { v: new Uint16Array(8 * headDim) }, {}],
      ['ERR_SHAPE', { v: new Float32Array(1) }, {}],
      ['ABORT_ERR', {}, { signal: aborted }],
      ['ERR_BUSY', {}, { out }],
      ['ERR_NON_FINITE', { q: nan, k: nan }, {}],
    ];
    const other = device.createStream(stream.config);
    for (const [i, [code, input, options]] of faults.entries()) {
      for (const [, laterInput, laterOptions] of faults.slice(i + 1)) {
        const given = { q: row(), k: row(), v: row(), ...laterInput, ...input };
        const call = other.attend(given as never, { ...laterOptions, ...options });
        await expect(call).rejects.toMatchObject({ code });
      }
    }
    expect(other.tokens).toBe(0);
    await Promise.all([front, pending]);
    for (const one of [stream, other, out]) one.close();
  });

  seededTest('nothing else than that: other numbers of dimensions only need the right size', (rng) => {
    const [stream, plain] = [newStream(), newStream()];
    const data = inputFor(stream, rng);
    const q = device.tensor([TOKENS * 24], 'float32', data.q);
    const k = device.tensor([TOKENS, 12], 'float32', data.k);
    const v = device.tensor([1, TOKENS, 2, 5], 'float32', data.v);
    expect(bytesOf(stream.attendSync({ q, k, v })).equals(bytesOf(plain.attendSync(data)))).toBe(true);
    for (const one of [stream, plain, q, k, v]) one.close();
  });

  test('objects that only look like tensors', async () => {
    const stream = newStream();
    const tensor = device.tensor(shapes.q, 'float32');
    const data = { k: emptyTensor('float32', 132), v: emptyTensor('float32', 110) };
    for (const q of [
      Object.create(tensor),
      Object.create(DeviceTensor.prototype),
      new Proxy(tensor, {}),
      { ...tensor },
    ]) {
      const failure = { code: 'ERR_INVALID_ARG_TYPE', says: ['input.q', 'DeviceTensor'] };
      expectThrow(() => stream.attendSync({ ...data, q }), failure);
      await expectReject(() => stream.attend({ ...data, q }), failure);
    }
    // Nor do properties of a user's own make it another tensor.
    Object.defineProperties(tensor, { dtype: { value: 'float16' }, shape: { value: [1] } });
    expect(stream.attendSync({ ...data, q: tensor }).length).toBe(220);
    for (const one of [stream, tensor]) one.close();
  });
});

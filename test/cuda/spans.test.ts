import { randomInt } from 'node:crypto';
import { type Device, openDevice, type StreamConfig, type Tensor } from '../../lib';
import { errorsByHead, FLOAT32_ERROR } from '../support/accuracy';
import { emulated, openTestDevice } from '../support/device';
import { dataOf, makeInput } from '../support/inputs';
import { Rng } from '../support/rng';
import { sizes } from '../support/sizes';
import { stateOf } from '../support/state';
import { bytesOf, DTYPES, decode, emptyTensor, type MadeTensor, poisoned } from '../support/tensors';
import { cudaTest } from './only';

/**
 * Long calls are computed in spans, cut by how much fits into memory and by how long it takes: never twice in the same
 * way, for the GPU's speed is measured. Whatever the cuts, whatever runs beside them and wherever the tensors are, a
 * call gives the same bits.
 */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

// One segment that is cut within, and many that are cut between.
const [long, many]: StreamConfig[] = emulated
  ? [
      { heads: 2, kvHeads: 1, headDim: 16, valueDim: 24, segmentLength: 384, rope: { theta: 1000 } },
      { heads: 4, headDim: 16, segmentLength: 16, rule: 'linear' },
    ]
  : [
      { heads: 16, kvHeads: 4, headDim: 128, segmentLength: 65536, rope: { theta: 1000 } },
      { heads: 16, kvHeads: 4, headDim: 128, segmentLength: 512, rule: 'linear' },
    ];
const tokens = sizes.spanTokens;

/** Random rows again and again: only the first are worth drawing where there are many. */
function longInput(config: StreamConfig): { q: Tensor; k: Tensor; v: Tensor } {
  const { config: shape } = device.createStream(config);
  const drawn = makeInput(shape, Math.min(tokens, 1000), new Rng(5));
  const repeated = ({ data }: MadeTensor) => {
    const all = emptyTensor(shape.dtype, (data.length / drawn.tokens) * tokens);
    for (let at = 0; at < all.length; at += data.length) all.set(data.subarray(0, all.length - at), at);
    return all;
  };
  return { q: repeated(drawn.q), k: repeated(drawn.k), v: repeated(drawn.v) };
}

describe.each([
  ['one long segment', long],
  ['many segments', many],
])('a long call over %s', (_, config) => {
  for (const dtype of DTYPES) {
    cudaTest(`gives the same bits from anywhere and beside anything, in ${dtype}`, async () => {
      const input = longInput({ ...config, dtype });
      const first = device.createStream({ ...config, dtype });
      const width = first.config.heads * first.config.valueDim;
      // A beginning of its own, so that the call continues an open segment.
      const head = dataOf(makeInput(first.config, 7, new Rng(6)));
      first.attendSync(head);
      const [second, third, fourth] = [first.fork(), first.fork(), first.fork()];

      const { units } = device.stats();
      const wanted = bytesOf(first.attendSync(input));
      expect(device.stats().units - units).toBeGreaterThan(1);
      const state = stateOf(first);

      const tensors = [input.q, input.k, input.v].map((data) => device.tensor([data.length], dtype, data));
      const out = device.tensor([tokens, first.config.heads, first.config.valueDim], dtype);
      const [q, k, v] = tensors;
      const buffers = [input.q, input.k, input.v].map((data) => {
        const shared = new (data.constructor as typeof Uint16Array)(device.hostBuffer(data.byteLength));
        shared.set(data);
        return shared as Tensor;
      });
      const apart = poisoned(dtype, tokens * width);
      const results = await Promise.all([
        second.attend({ q, k, v }, { out }).then((tensor) => tensor.read()),
        third.attend({ q: buffers[0], k: buffers[1], v: buffers[2] }),
        fourth.attend({ q: input.q, k, v: buffers[2] }, { out: apart }),
      ]);
      for (const result of results) expect(bytesOf(result).equals(wanted)).toBe(true);
      for (const stream of [second, third, fourth]) expect(stateOf(stream)).toEqual(state);
      for (const one of [first, second, third, fourth, out, ...tensors]) one.close();
    });
  }

  cudaTest('is what the processor computes', () => {
    const cpu = openDevice('cpu');
    const [stream, twin] = [device.createStream(config), cpu.createStream(config)];
    const whole = longInput(config);
    const some = (data: Tensor) => data.subarray(0, (data.length / tokens) * Math.min(tokens, 3000));
    const input = { q: some(whole.q), k: some(whole.k), v: some(whole.v) };
    const { heads, valueDim } = stream.config;
    const [got, wanted] = [stream, twin].map((one) => decode('float32', one.attendSync(input)));
    for (const error of errorsByHead(got, wanted, heads, valueDim)) expect(error).toBeLessThan(FLOAT32_ERROR);
    for (const one of [stream, twin, cpu]) one.close();
  });
});

cudaTest('what is on its way to a device tensor is not lost to the inputs of the next call', async () => {
  const [stream, twin] = [device.createStream(many), device.createStream(many)];
  const tensors = [1, 2, 3, 4].map((seed) => makeInput(stream.config, 300, new Rng(seed))).map(dataOf);
  const width = stream.config.heads * stream.config.valueDim;
  for (const input of tensors) {
    const out = device.tensor([300, stream.config.heads, stream.config.valueDim], 'float32');
    const wanted = twin.attendSync(input);
    stream.attendSync(input, { out });
    for (const other of tensors) twin.fork().attendSync(other); // takes the memory that is free now
    expect(wanted).toHaveLength(300 * width);
    expect(bytesOf(await out.read()).equals(bytesOf(wanted))).toBe(true);
    out.close();
  }
  for (const one of [stream, twin]) one.close();
});

cudaTest('a retrieval of many queries gives the bits of each alone', async () => {
  const stream = device.createStream({ ...many, dtype: 'bfloat16' });
  const input = longInput({ ...many, dtype: 'bfloat16' });
  stream.attendSync(input);
  const whole = bytesOf(await stream.retrieve({ q: input.q }));
  const { heads, headDim, valueDim } = stream.config;
  const row = heads * valueDim * 2;
  for (const token of [0, 1, 63, 64, 65, tokens - 1]) {
    const q = input.q.slice(token * heads * headDim, (token + 1) * heads * headDim);
    expect(bytesOf(stream.retrieveSync({ q })).equals(whole.subarray(token * row, (token + 1) * row))).toBe(
      true,
    );
  }
  stream.close();
});

cudaTest('cut calls fail as whole ones do, and change nothing', async () => {
  const rng = new Rng(randomInt(2 ** 31));
  const stream = device.createStream(long);
  const data = longInput(long);
  const before = stateOf(stream);
  const tensors = [data.k, data.v].map((one) => device.tensor([one.length], 'float32', one));
  for (const name of ['q', 'k', 'v'] as const) {
    const token = rng.int(tokens - 100, tokens - 1);
    const bad = data[name].slice();
    bad[Math.floor(((token + 0.5) * bad.length) / tokens)] = Number.NaN;
    const refusal = expect.objectContaining({ code: 'ERR_NON_FINITE', tensor: name, token });
    await expect(stream.attend({ ...data, [name]: bad })).rejects.toEqual(refusal);
    const tensor = device.tensor([bad.length], 'float32', bad);
    const [k, v] = tensors;
    await expect(stream.attend({ q: data.q, k, v, [name]: tensor })).rejects.toEqual(refusal);
    tensor.close();
  }
  expect(stateOf(stream)).toEqual(before);
  for (const one of [stream, ...tensors]) one.close();
});

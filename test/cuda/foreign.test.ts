import { type Device, openDevice } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject, expectThrow } from '../support/failures';
import { stateOf } from '../support/state';
import { cudaTest } from './only';

/** A tensor and a stream belong to the device that made them. */
const config = { heads: 2, headDim: 4, segmentLength: 4 };
const data = () => Float32Array.from({ length: 3 * 8 }, (_, i) => Math.sin(i));
const host = () => ({ q: data(), k: data(), v: data() });

let gpu: Device;
let cpu: Device;
beforeAll(() => {
  gpu = openTestDevice();
  cpu = openDevice('cpu');
});
afterAll(() => {
  gpu.close();
  cpu.close();
});

describe.each([
  ["the CPU's on CUDA", () => [gpu, cpu]],
  ["CUDA's on the CPU", () => [cpu, gpu]],
])('%s', (_, devices) => {
  cudaTest('tensors are refused wherever they are given', async () => {
    const [own, other] = devices();
    const stream = own.createStream(config);
    stream.attendSync(host());
    const before = stateOf(stream);
    const foreign = other.tensor([24], 'float32', data());
    const refusal = { code: 'ERR_INVALID_ARG_TYPE', says: [/Expected a tensor of '(cpu|cuda:0)'/] };
    for (const name of ['q', 'k', 'v'] as const) {
      await expectReject(() => stream.attend({ ...host(), [name]: foreign }), {
        ...refusal,
        says: [...refusal.says, `"input.${name}"`],
      });
      expectThrow(() => stream.attendSync({ ...host(), [name]: foreign }), refusal);
    }
    await expectReject(() => stream.retrieve({ q: foreign }), refusal);
    await expectReject(() => stream.attend(host(), { out: foreign }), refusal);
    await expectReject(() => stream.retrieve({ q: data() }, { out: foreign }), refusal);
    expect(stateOf(stream)).toEqual(before);
    foreign.write(data()); // it is leased to nobody
    for (const one of [stream, foreign]) one.close();
  });

  cudaTest('a stream is refused in a batch, and the other entries are computed', async () => {
    const [own, other] = devices();
    const [stream, foreign] = [own.createStream(config), other.createStream(config)];
    const [good, bad] = await own.attendBatch([
      { stream, ...host() },
      { stream: foreign, ...host() },
    ]);
    expect(good.status).toBe('fulfilled');
    expect(bad).toMatchObject({ status: 'rejected', reason: { code: 'ERR_INVALID_ARG_TYPE' } });
    expect([stream.tokens, foreign.tokens]).toEqual([3, 0]);
    expectThrow(() => own.createBatch([stream, foreign]), {
      code: 'ERR_INVALID_ARG_TYPE',
      says: [/'(cpu|cuda:0)'/],
    });
    for (const one of [stream, foreign]) one.close();
  });

  cudaTest('a host buffer is an array like any other', async () => {
    const [own, other] = devices();
    const [stream, twin] = [own.createStream(config), own.createStream(config)];
    const buffer = new Float32Array(other.hostBuffer(96));
    buffer.set(data());
    const out = new Float32Array(other.hostBuffer(96));
    expect(await stream.attend({ ...host(), q: buffer }, { out })).toBe(out);
    expect(out).toEqual(await twin.attend(host()));
    for (const one of [stream, twin]) one.close();
  });
});

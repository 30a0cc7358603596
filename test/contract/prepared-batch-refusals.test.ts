import type { Device, MemoryStream } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject, expectThrow } from '../support/failures';
import { dataOf, makeInput } from '../support/inputs';
import { Rng } from '../support/rng';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const small = { heads: 1, headDim: 2, segmentLength: 4 };
const newStreams = (count: number) => Array.from({ length: count }, () => device.createStream(small));
const packed = (streams: MemoryStream[]) => makeInput(streams[0].config, streams.length, new Rng(1));
const closeAll = (...closable: { close(): void }[]) => {
  for (const one of closable) one.close();
};

describe('createBatch refuses', () => {
  const TYPE = 'ERR_INVALID_ARG_TYPE';
  const RANGE = 'ERR_OUT_OF_RANGE';
  const refuse = (streams: unknown, code: string, ...says: string[]) =>
    expectThrow(() => device.createBatch(streams as MemoryStream[]), { code, says });

  test('what is no array of streams', () => {
    const [stream] = newStreams(1);
    for (const wrong of [undefined, null, 5, stream, { length: 1, 0: stream }, new Set([stream])])
      refuse(wrong, TYPE, 'streams', 'array');
    for (const wrong of [undefined, null, 5, {}, device, Object.create(stream), new Proxy(stream, {})])
      refuse([stream, wrong], TYPE, 'streams[1]', 'MemoryStream');
    refuse(new Array(2), TYPE, 'streams[0]');
    stream.close();
  });

  test('none, and more than 4096', () => {
    const [stream] = newStreams(1);
    refuse([], RANGE, 'streams', '4096');
    refuse(new Array(4097).fill(stream), RANGE, 'streams', '4096');
    stream.close();
  });

  test('a stream that occurs twice, is closed, or is configured in another way', () => {
    const streams = newStreams(3);
    refuse([...streams, streams[1]], 'ERR_BUSY', 'streams[3]');
    for (const config of [
      { headDim: 3 },
      { segmentLength: 5 },
      { gate: 1 },
      { rope: { theta: 2 } },
      { scale: 1 },
    ]) {
      const other = device.createStream({ ...small, ...config });
      refuse([streams[0], other], RANGE, 'streams[1]');
      other.close();
    }
    streams[2].close();
    refuse(streams, 'ERR_CLOSED', 'streams[2]');
    closeAll(...streams);
  });

  test('everything once the device is closed', () => {
    const own = openTestDevice();
    own.close();
    expectThrow(() => own.createBatch([]), { code: 'ERR_CLOSED', says: ['device'] });
  });
});

describe('a step refuses', () => {
  const TYPE = 'ERR_INVALID_ARG_TYPE';
  test.each<[string, (good: ReturnType<typeof dataOf>) => unknown, string, string]>([
    ['no object', () => 5, TYPE, 'input'],
    ['an unknown key', (good) => ({ ...good, more: 1 }), TYPE, 'more'],
    ['a missing tensor', ({ q, k }) => ({ q, k }), TYPE, 'input.v'],
    ['another class', (good) => ({ ...good, q: new Uint16Array(6) }), 'ERR_DTYPE', 'input.q'],
    ['a token too few', (good) => ({ ...good, q: good.q.subarray(2) }), 'ERR_SHAPE', 'input.q'],
    ['a token too many', (good) => ({ ...good, q: new Float32Array(8) }), 'ERR_SHAPE', 'input.q'],
    ['half a token', (good) => ({ ...good, q: new Float32Array(5) }), 'ERR_SHAPE', 'input.q'],
    ['keys that do not fit', (good) => ({ ...good, k: new Float32Array(4) }), 'ERR_SHAPE', 'input.k'],
    ['an out that does not fit', (good) => ({ ...good, out: new Float32Array(5) }), 'ERR_SHAPE', 'input.out'],
    [
      'a shared out',
      (good) => ({ ...good, out: new Float32Array(new SharedArrayBuffer(24)) }),
      TYPE,
      'input.out',
    ],
    [
      'an out of another shape',
      (good) => ({ ...good, out: device.tensor([1, 3, 2], 'float32') }),
      'ERR_SHAPE',
      'input.out',
    ],
  ])('%s', async (_, spoil, code, says) => {
    const streams = newStreams(3);
    const batch = device.createBatch(streams);
    const input = spoil(dataOf(packed(streams))) as never;
    expectThrow(() => batch.stepSync(input), { code, says: [says] });
    await expectReject(() => batch.step(input), { code, says: [says] });
    expect(streams.map(({ tokens }) => tokens)).toEqual([0, 0, 0]);
    closeAll(batch, ...streams);
  });

  test('wrong options', async () => {
    const streams = newStreams(1);
    const batch = device.createBatch(streams);
    const input = dataOf(packed(streams));
    for (const options of [null, 5, [], { out: input.q }])
      await expectReject(() => batch.step(input, options as never), { code: TYPE, says: ['options'] });
    await expectReject(() => batch.step(input, { signal: {} as never }), {
      code: TYPE,
      says: ['options.signal'],
    });
    const signal = new AbortController().signal;
    expectThrow(() => batch.stepSync(input, { signal } as never), { code: TYPE, says: ['signal'] });
    closeAll(batch, ...streams);
  });
});

import type { Device, StreamConfig } from '../../lib';
import { openTestDevice } from '../support/device';
import { dataOf, makeInput } from '../support/inputs';
import { seededTest } from '../support/seeded';
import { DTYPES } from '../support/tensors';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

function stateBytes(config: StreamConfig): number {
  const {
    heads,
    kvHeads = heads,
    headDim,
    valueDim = headDim,
    segmentLength = 2048,
    dtype = 'float32',
  } = config;
  const element = dtype === 'float32' ? 4 : 2;
  const memory = headDim * valueDim * 4 + headDim * 8;
  return kvHeads * (memory + segmentLength * (headDim + valueDim) * element);
}

test('byteLength is the state of the formula, plus at most 5% and 4 KiB', () => {
  let checked = 0;
  for (const dtype of DTYPES) {
    for (const [heads, kvHeads] of [
      [1, 1],
      [8, 8],
      [8, 2],
      [32, 1],
      [1024, 1024],
    ]) {
      for (const [headDim, valueDim] of [
        [1, 1],
        [3, 7],
        [64, 64],
        [128, 128],
        [256, 1],
        [1, 256],
        [100, 33],
      ]) {
        for (const segmentLength of [1, 5, 128, 2048]) {
          if (kvHeads * (headDim + valueDim) * segmentLength > 5e7) continue;
          for (const rope of headDim % 2 === 0 ? [null, { theta: 10_000 }] : [null]) {
            const config: StreamConfig = { heads, kvHeads, headDim, valueDim, segmentLength, dtype, rope };
            const stream = device.createStream(config);
            const wanted = stateBytes(config);
            if (!(stream.byteLength >= wanted && stream.byteLength <= 1.05 * wanted + 4096)) {
              throw new Error(
                `${JSON.stringify(config)}: ${stream.byteLength} bytes, the formula says ${wanted}`,
              );
            }
            stream.close();
            checked++;
          }
        }
      }
    }
  }
  expect(checked).toBeGreaterThan(500);
});

seededTest('byteLength never changes', async (rng) => {
  for (const dtype of DTYPES) {
    const stream = device.createStream({
      heads: 4,
      kvHeads: 2,
      headDim: 8,
      segmentLength: 10,
      dtype,
      rope: { theta: 10 },
    });
    const { byteLength } = stream;
    expect(byteLength).toBeGreaterThan(0);
    for (let i = 0; i < 20; i++) {
      await stream.attend(dataOf(makeInput(stream.config, rng.int(1, 40), rng)));
      expect(stream.byteLength).toBe(byteLength);
    }
    const fork = stream.fork();
    expect(fork.byteLength).toBe(byteLength);
    fork.close();
    stream.reset();
    expect(stream.byteLength).toBe(byteLength);
    stream.close();
  }
});

test('the device counts exactly the bytes of its open streams', () => {
  const before = device.stats();
  const streams = [1, 7, 64].map((headDim) => device.createStream({ heads: 2, headDim, segmentLength: 100 }));
  streams.push(streams[1].fork());
  const bytes = streams.reduce((sum, { byteLength }) => sum + byteLength, 0);
  expect(device.stats().streamBytes - before.streamBytes).toBe(bytes);
  expect(device.stats().streams - before.streams).toBe(4);
  for (const stream of streams) stream.close();
  expect(device.stats()).toMatchObject({ streamBytes: before.streamBytes, streams: before.streams });
});

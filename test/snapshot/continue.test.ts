import { type Device, openDevice, type StreamConfig } from '../../lib';
import { onCuda, openTestDevice } from '../support/device';
import { cut, dataOf, makeInput, tokensOf } from '../support/inputs';
import type { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { sizes } from '../support/sizes';
import { stateOf } from '../support/state';
import { bytesOf, decode } from '../support/tensors';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

function randomConfig(rng: Rng): StreamConfig {
  const kvHeads = rng.int(1, 3);
  const heads = kvHeads * rng.int(1, 3);
  return {
    heads,
    kvHeads,
    headDim: 2 * rng.int(1, 10),
    valueDim: rng.int(1, 20),
    segmentLength: rng.pick([1, 2, 5, 8, 16, 33]),
    rule: rng.pick(['linear', 'delta'] as const),
    gate: rng.pick([0, Array.from({ length: heads }, () => 3 * rng.normal())]),
    scale: rng.uniform(0.01, 2),
    rope: rng.pick([null, { theta: rng.uniform(10, 1e6) }]),
    emptyRead: rng.pick(['gated', 'local'] as const),
    dtype: rng.pick(['float32', 'bfloat16', 'float16'] as const),
  };
}

seededTest('a restored stream goes on bit for bit, wherever it is cut and whatever it is', async (rng) => {
  let open = 0;
  let absorbed = 0;
  for (let run = 0; run < sizes.snapshotRuns; run++) {
    using stream = device.createStream(randomConfig(rng));
    const { config } = stream;
    const total = rng.int(1, 4 * config.segmentLength + 8);
    const at = rng.int(0, total - 1);
    const input = makeInput(config, total, rng);
    if (at > 0) await stream.attend(dataOf(tokensOf(input, 0, at)));

    using restored = await device.restore(await stream.snapshot());
    expect(restored.config).toEqual(config);
    expect(stateOf(restored)).toEqual(stateOf(stream));
    open += at % config.segmentLength === 0 ? 0 : 1;
    absorbed += restored.segments > 0 ? 1 : 0;

    for (const piece of cut(tokensOf(input, at, total), rng.pieces(total - at, 20))) {
      const [a, b] = [await stream.attend(dataOf(piece)), await restored.attend(dataOf(piece))];
      expect(bytesOf(b).equals(bytesOf(a))).toBe(true);
    }
    const q = makeInput(config, 3, rng).q.data;
    expect(bytesOf(restored.retrieveSync({ q })).equals(bytesOf(stream.retrieveSync({ q })))).toBe(true);
    expect(stateOf(restored)).toEqual(stateOf(stream));
  }
  expect(Math.min(open, absorbed)).toBeGreaterThan(0);
});

seededTest('a stream that is saved after every call is the stream that never was', async (rng) => {
  const config = { heads: 4, kvHeads: 2, headDim: 8, segmentLength: 7, rope: { theta: 1e4 } };
  using stream = device.createStream(config);
  const input = makeInput(stream.config, 60, rng);
  let moved = device.createStream(config);
  for (const piece of cut(input, rng.pieces(60, 11))) {
    const [a, b] = [stream.attendSync(dataOf(piece)), moved.attendSync(dataOf(piece))];
    expect(bytesOf(b).equals(bytesOf(a))).toBe(true);
    const bytes = await moved.snapshot();
    moved.close();
    moved = await device.restore(bytes);
  }
  expect(stateOf(moved)).toEqual(stateOf(stream));
  moved.close();
});

seededTest('a stream saved on one device goes on on another', async (rng) => {
  using cpu = openDevice('cpu', { threads: 2 });
  for (const [from, to] of [
    [device, cpu],
    [cpu, device],
  ]) {
    using stream = from.createStream({ heads: 2, headDim: 8, segmentLength: 16, dtype: 'float16' });
    await stream.attend(dataOf(makeInput(stream.config, 41, rng)));
    const bytes = Buffer.from(await stream.snapshot());
    using moved = await to.restore(bytes);
    expect(bytes.equals(await moved.snapshot())).toBe(true);
    expect(moved.memory()).toEqual(stream.memory());
    const more = dataOf(makeInput(stream.config, 30, rng));
    const [a, b] = [await stream.attend(more), await moved.attend(more)];
    if (onCuda) {
      const [x, y] = [decode('float16', a), decode('float16', b)];
      expect(Math.max(...x.map((one, i) => Math.abs(one - y[i])))).toBeLessThan(0.01); // of numbers near 1
    } else expect(bytesOf(b).equals(bytesOf(a))).toBe(true);
    expect([moved.tokens, moved.segments]).toEqual([71, 4]);
  }
});

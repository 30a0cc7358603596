import type { Device, MemoryStream, StreamConfig } from '../../lib';
import { openTestDevice } from '../support/device';
import { dataOf, makeInput } from '../support/inputs';
import { Rng } from '../support/rng';
import { SEED } from '../support/seeded';
import { sizes } from '../support/sizes';
import { stateOf } from '../support/state';
import { bytesOf, DTYPES } from '../support/tensors';
import { cudaTest } from './only';

/** Calls that are pending at the same time are launched together. None of them can tell. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const SHAPES: StreamConfig[] = [
  { heads: 4, kvHeads: 2, headDim: 6, valueDim: 5, segmentLength: 8 },
  { heads: 4, kvHeads: 2, headDim: 6, valueDim: 5, segmentLength: 8, rule: 'linear', emptyRead: 'local' },
  { heads: 2, headDim: 64, segmentLength: 40, rope: { theta: 500 } },
  { heads: 8, kvHeads: 1, headDim: 17, valueDim: 33, segmentLength: 1 },
];
const { gatheringRounds: ROUNDS, gatheringTokens: LONGEST } = sizes;

cudaTest('calls of all kinds and configurations at once give the bits of each alone', async () => {
  const rng = new Rng(SEED);
  const streams: MemoryStream[] = [];
  const turn = rng.int(0, DTYPES.length - 1);
  for (const shape of SHAPES) {
    for (const dtype of DTYPES.filter((_, i) => (i + turn) % DTYPES.length < sizes.gatheringTypes)) {
      streams.push(...[0, 1].map(() => device.createStream({ ...shape, dtype })));
    }
  }
  const twins = streams.map((stream) => stream.fork());
  for (let round = 0; round < ROUNDS; round++) {
    const results: Promise<unknown>[] = [];
    for (const [i, stream] of streams.entries()) {
      // One token, a few, some: those that are decoded and those that are not, with borders and without.
      for (let call = 0; call < 3; call++) {
        const input = dataOf(makeInput(stream.config, rng.pick([1, 1, 2, 4, 5, 20, LONGEST]), rng));
        const twin = twins[i];
        if (rng.int(0, 2) === 0) {
          const wanted = bytesOf(twin.retrieveSync({ q: input.q }));
          results.push(
            stream.retrieve({ q: input.q }).then((got) => expect(bytesOf(got).equals(wanted)).toBe(true)),
          );
        } else {
          const wanted = bytesOf(twin.attendSync(input));
          results.push(stream.attend(input).then((got) => expect(bytesOf(got).equals(wanted)).toBe(true)));
        }
      }
    }
    await Promise.all(results);
  }
  for (const [i, stream] of streams.entries()) expect(stateOf(stream)).toEqual(stateOf(twins[i]));
  for (const one of [...streams, ...twins]) one.close();
});

cudaTest('calls that come again take no new memory', async () => {
  const [shape] = SHAPES;
  const streams = Array.from({ length: 8 }, () => device.createStream(shape));
  const input = dataOf(makeInput(streams[0].config, 20, new Rng(1)));
  // One batch, or chance would decide which of them are launched together.
  const round = () => device.attendBatch(streams.map((stream) => ({ stream, ...input })));
  for (let i = 0; i < 3; i++) await round();
  const { allocatedBytes } = device.stats();
  for (let i = 0; i < 10; i++) await round();
  expect(device.stats().allocatedBytes).toBe(allocatedBytes);
  for (const stream of streams) stream.close();
});

cudaTest('synchronous calls go on beside pending ones', async () => {
  const [shape] = SHAPES;
  const [busy, quick] = [device.createStream(SHAPES[2]), device.createStream(shape)];
  const twin = quick.fork();
  const rng = new Rng(3);
  const long = dataOf(makeInput(busy.config, sizes.gatheringLongTokens, rng));
  const pending = busy.attend(long);
  for (let i = 0; i < 10; i++) {
    const input = dataOf(makeInput(quick.config, 3, rng));
    expect(bytesOf(quick.attendSync(input)).equals(bytesOf(twin.attendSync(input)))).toBe(true);
  }
  const wanted = device.createStream(SHAPES[2]);
  expect(bytesOf(await pending).equals(bytesOf(wanted.attendSync(long)))).toBe(true);
  for (const one of [busy, quick, twin, wanted]) one.close();
});

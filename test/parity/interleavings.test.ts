import fc from 'fast-check';
import type { Device, MemoryStream, StreamConfig } from '../../lib';
import { openTestDevice } from '../support/device';
import { cut, dataOf, type MadeInput, makeInput } from '../support/inputs';
import { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { sizes } from '../support/sizes';
import { stateOf } from '../support/state';
import { bytesOf } from '../support/tensors';

/** Several streams at once give each what it would give alone. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const CONFIGS: StreamConfig[] = [
  {
    heads: 4,
    kvHeads: 2,
    headDim: 16,
    segmentLength: 20,
    rule: 'delta',
    dtype: 'float32',
    rope: { theta: 100 },
  },
  { heads: 1, headDim: 7, valueDim: 3, segmentLength: 5, rule: 'linear', dtype: 'bfloat16' },
  { heads: 2, headDim: 32, valueDim: 40, segmentLength: 64, rule: 'delta', dtype: 'float16' },
  { heads: 8, kvHeads: 1, headDim: 64, segmentLength: 33, rule: 'linear', dtype: 'float32' },
];

interface Task {
  stream: MemoryStream;
  pieces: MadeInput[];
  outputs: Promise<Buffer>[];
}

const attend = (task: Task, piece: MadeInput) =>
  task.outputs.push(task.stream.attend(dataOf(piece)).then(bytesOf));

seededTest('random interleavings of calls change nothing', async (rng) => {
  let runs = 0;
  const property = fc.asyncProperty(
    fc.integer({ min: 0, max: 2 ** 31 }),
    fc.integer({ min: 2, max: 6 }),
    async (draw, count) => {
      const random = new Rng(draw);
      const begin = (config: StreamConfig, input?: MadeInput): Task => {
        const stream = device.createStream(config);
        const made = input ?? makeInput(stream.config, random.int(20, 120), random);
        return { stream, pieces: cut(made, random.pieces(made.tokens, 40)), outputs: [] };
      };
      const together = Array.from({ length: count }, () => begin(random.pick(CONFIGS)));
      const queue = together.map((task) => [...task.pieces]);
      while (queue.some((pieces) => pieces.length > 0)) {
        const i = random.int(0, count - 1);
        const piece = queue[i].shift();
        if (piece) attend(together[i], piece);
        if (random.int(0, 9) === 0) await Promise.all(together[random.int(0, count - 1)].outputs);
      }
      for (const task of together) {
        const outputs = Buffer.concat(await Promise.all(task.outputs));
        const alone = device.createStream(configOf(task.stream));
        const wanted = Buffer.concat(task.pieces.map((piece) => bytesOf(alone.attendSync(dataOf(piece)))));
        expect(outputs.equals(wanted)).toBe(true);
        expect(stateOf(task.stream)).toEqual(stateOf(alone));
        task.stream.close();
        alone.close();
        runs++;
      }
    },
  );
  await fc.assert(property, { numRuns: sizes.interleavings, seed: rng.bits() | 0 });
  expect(runs).toBeGreaterThanOrEqual(2 * sizes.interleavings);
});

function configOf(stream: MemoryStream): StreamConfig {
  return { ...stream.config };
}

import type { Device, DType, StreamConfig } from '../../lib';
import { openTestDevice } from '../support/device';
import { around, makeInput } from '../support/inputs';
import { Pair } from '../support/pair';
import type { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { sizes as testSizes } from '../support/sizes';

const SHAPES = [
  { headDim: 1, valueDim: 1 },
  { headDim: 2, valueDim: 5 },
  { headDim: 7, valueDim: 33 },
  { headDim: 17, valueDim: 1 },
  { headDim: 64, valueDim: 64 },
  { headDim: 64, valueDim: 33 },
  { headDim: 100, valueDim: 100 },
  { headDim: 128, valueDim: 128 },
  { headDim: 128, valueDim: 5 },
  { headDim: 256, valueDim: 256 },
];
const SEGMENT_LENGTHS = [1, 2, 5, 16, 63, 64, 65, 100, 128, 513];
const HEADS = [
  { heads: 1, kvHeads: 1 },
  { heads: 3, kvHeads: 3 },
  { heads: 2, kvHeads: 1 },
  { heads: 4, kvHeads: 2 },
  { heads: 4, kvHeads: 1 },
  { heads: 8, kvHeads: 1 },
];
/** Multiplications that a case may cost; larger ones get fewer heads and fewer tokens. */
const BUDGET = testSizes.gridWork;

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

/** Calls of 1, N-1, N, N+1 tokens, then up to three segments that end inside one. */
function callSizes(segmentLength: number, segments: number, rng: Rng): number[] {
  const last = (segments - 1) * segmentLength + rng.int(1, segmentLength);
  return [1, segmentLength - 1, segmentLength, segmentLength + 1, last].filter((size) => size > 0);
}

const workOf = (shape: (typeof SHAPES)[number], segmentLength: number, heads: number) =>
  heads * 5 * segmentLength * (0.5 * segmentLength + shape.headDim) * (shape.headDim + shape.valueDim);

function randomConfig(shape: (typeof SHAPES)[number], segmentLength: number, rng: Rng): StreamConfig {
  const affordable = HEADS.filter(
    ({ heads }) => heads === 1 || workOf(shape, segmentLength, heads) <= BUDGET,
  );
  const heads = rng.pick(affordable);
  return {
    ...shape,
    ...heads,
    segmentLength,
    rule: rng.pick(['linear', 'delta'] as const),
    dtype: rng.pick<DType>(['float32', 'float32', 'bfloat16', 'float16']),
    gate: Array.from({ length: heads.heads }, () => 2 * rng.normal()),
    scale: rng.pick([undefined, undefined, 0.05, 0.4]),
    rope: shape.headDim % 2 === 0 ? rng.pick([null, { theta: 10_000 }, { theta: 37.5 }]) : null,
    emptyRead: rng.pick([undefined, 'gated', 'local'] as const),
  };
}

describe.each(SHAPES)('headDim $headDim and valueDim $valueDim', (shape) => {
  for (const segmentLength of SEGMENT_LENGTHS) {
    seededTest(`segments of ${segmentLength} agree with the reference, call by call`, async (rng) => {
      const config = randomConfig(shape, segmentLength, rng);
      const pair = new Pair(device, config);
      try {
        const probe = makeInput(pair.stream.config, 3, rng).q;
        const empty = await pair.retrieve(probe, 'sync');
        expect(empty.every((x: number) => x === 0)).toBe(true);
        // In a memory of a few numbers, values around 0 may cancel to something far smaller than themselves.
        const mean = shape.headDim * shape.valueDim < 20 ? 2 : 0;
        const sizes = callSizes(segmentLength, workOf(shape, segmentLength, 1) > BUDGET ? 1 : 3, rng);
        for (const size of sizes) {
          const input = makeInput(pair.stream.config, size, rng, { v: around(mean) });
          await pair.attend(input, rng.pick(['sync', 'async'] as const));
        }
        await pair.retrieve(makeInput(pair.stream.config, 5, rng).q, rng.pick(['sync', 'async'] as const));
        pair.expectMemory();
        expect(pair.compared).toBe(sizes.length + 3);
        expect(pair.stream.segments).toBeGreaterThanOrEqual(3);
      } catch (error) {
        throw new Error(`${JSON.stringify(config)}: ${(error as Error).message}`, { cause: error });
      } finally {
        pair.close();
      }
    });
  }
});

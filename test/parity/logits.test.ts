import type { Device } from '../../lib';
import { onCuda, openTestDevice } from '../support/device';
import { expectThrow } from '../support/failures';
import { around, constant, type Draws, dataOf, makeInput } from '../support/inputs';
import { Pair } from '../support/pair';
import { seededTest } from '../support/seeded';
import { DTYPES } from '../support/tensors';

/** Softmax where logits reach +-1000: the largest must be subtracted first, and their digits must survive. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const DIMS = [1, 16, 64, 128];
/** Every |q_i k_i| such that d of them, times 1 / sqrt(d), make 1000. */
const size = (headDim: number) => Math.sqrt(1000 / Math.sqrt(headDim));

const CASES: { name: string; draws: (headDim: number) => Draws; reaches: number }[] = [
  {
    name: 'all near +1000',
    draws: (d) => ({ q: around(size(d), 0.003), k: around(size(d), 0.003) }),
    reaches: 950,
  },
  {
    name: 'all near -1000',
    draws: (d) => ({ q: around(size(d), 0.003), k: around(-size(d), 0.003) }),
    reaches: 950,
  },
  {
    name: 'spread from -1000 to +1000',
    draws: (d) => ({ q: around(0, 18 * d ** 0.25), k: around(0, 18 / d ** 0.25) }),
    reaches: 500,
  },
  {
    name: 'mostly near +1000 with some at -1000',
    draws: (d) => ({
      q: around(size(d), 0.003),
      k: (rng, _, token) => (token % 3 === 1 ? -1 : 1) * (size(d) + 0.003 * rng.normal()),
    }),
    reaches: 950,
  },
];

describe.each(CASES)('logits $name', ({ draws, reaches }) => {
  for (const dtype of DTYPES) {
    seededTest(`give accurate ${dtype} outputs`, async (rng) => {
      for (const headDim of DIMS) {
        // On CUDA rotated 16-bit queries and keys are rounded: a logit of 1000 then errs by more than 1.
        const turns = headDim % 2 === 0 && !(onCuda && dtype !== 'float32');
        for (const rope of turns ? [null, { theta: 10_000 }] : [null]) {
          const config = { heads: 2, kvHeads: 1, headDim, valueDim: 11, segmentLength: 100, dtype, rope };
          const pair = new Pair(device, { ...config, emptyRead: 'local', gate: [-3, 1] });
          const input = makeInput(pair.stream.config, 130, rng, draws(headDim));
          await pair.attend(input, 'sync');
          await pair.attend(makeInput(pair.stream.config, 1, rng, draws(headDim)), 'sync');
          expect(pair.compared).toBe(2);
          if (rope === null)
            expect(largestLogit(input.q.values, input.k.values, headDim)).toBeGreaterThan(reaches);
          pair.close();
        }
      }
    });
  }
});

/** Over the first token's key and all queries of head 0: that the case is as extreme as its name. */
function largestLogit(q: Float64Array, k: Float64Array, headDim: number): number {
  let largest = 0;
  for (let t = 0; t < k.length / headDim; t++) {
    for (let p = 0; p <= t; p++) {
      let dot = 0;
      for (let i = 0; i < headDim; i++) dot += q[2 * t * headDim + i] * k[p * headDim + i];
      largest = Math.max(largest, Math.abs(dot) / Math.sqrt(headDim));
    }
  }
  return largest;
}

seededTest('weak and strong queries and keys side by side give accurate outputs', async (rng) => {
  const strength = Array.from({ length: 300 }, () => 2 ** rng.uniform(-3, onCuda ? 1 : 4));
  for (const dtype of DTYPES) {
    const config = { heads: 2, kvHeads: 1, headDim: 16, valueDim: 20, segmentLength: 150, dtype };
    const pair = new Pair(device, { ...config, gate: [-1, 1] });
    const input = makeInput(pair.stream.config, 300, rng, {
      q: (random, _, token) => strength[token] * random.normal(),
      k: (random, _, token) => strength[299 - token] * random.normal(),
    });
    await pair.attend(input, 'sync');
    expect(pair.compared).toBe(1);
    pair.close();
  }
});

seededTest('strong keys between weak ones give accurate outputs, wherever they lie', async (rng) => {
  const headDim = 16;
  for (const [first, last] of [
    [0, 3],
    [9, 12],
    [40, 45],
    [62, 64],
  ]) {
    const pair = new Pair(device, { heads: 1, headDim, segmentLength: 200, gate: -2 });
    const strong = around(size(headDim), 0.003);
    const input = makeInput(pair.stream.config, 150, rng, {
      q: strong,
      k: (random, index, token) =>
        token % 64 >= first && token % 64 < last ? strong(random, index, token) : 0.01 * random.normal(),
    });
    await pair.attend(input, 'sync');
    expect(pair.compared).toBe(1);
    pair.close();
  }
});

seededTest(
  'terms of 1e20 that cancel inside a logit leave it exact, or fail the call on CUDA',
  async (rng) => {
    const pair = new Pair(device, {
      heads: 1,
      headDim: 2,
      valueDim: 3,
      segmentLength: 64,
      scale: 1,
      gate: -2,
    });
    const input = makeInput(pair.stream.config, 40, rng, {
      q: constant(2 ** 66),
      k: (_, index) => (index === 0 ? 2 ** 66 : -(2 ** 66)),
    });
    if (onCuda) {
      // There logits are sums in float32, and 2^132 is beyond it.
      expectThrow(() => pair.stream.attendSync(dataOf(input)), {
        code: 'ERR_NON_FINITE',
        tensor: 'output',
        token: 0,
      });
      expect(pair.stream.tokens).toBe(0);
    } else {
      await pair.attend(input, 'sync');
      expect(pair.compared).toBe(1);
    }
    pair.close();
  },
);

seededTest('a product beyond float32 is no overflow when the scale brings it back', async (rng) => {
  const scale = 2 ** -130;
  const pair = new Pair(device, { heads: 1, headDim: 1, valueDim: 3, segmentLength: 64, scale, gate: -2 });
  const draws = { q: around(2 ** 66, 2 ** 64), k: around(2 ** 66, 2 ** 64) }; // logits near 4, products near 1e40
  await pair.attend(makeInput(pair.stream.config, 40, rng, draws), 'sync');
  expect(pair.compared).toBe(1);
  pair.close();
});

import type { Device } from '../../lib';
import { ReferenceStream } from '../reference/reference-stream';
import { errorsByHead, ROUNDING_ERRORS } from '../support/accuracy';
import { openTestDevice } from '../support/device';
import { dataOf, makeInput } from '../support/inputs';
import { seededTest } from '../support/seeded';
import { decode, rounded } from '../support/tensors';

/**
 * What 16 bits cost, with queries, keys and values as a trained model has them: on every device at most twice what
 * rounding the exact result costs, which no 16-bit output can avoid. INFINI_PRINT_ERRORS=1 prints the errors.
 */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const [HEADS, TOKENS] = [2, 600];

describe.each([
  { headDim: 64, segmentLength: 128, rope: null },
  { headDim: 128, segmentLength: 256, rope: null },
  { headDim: 64, segmentLength: 512, rope: { theta: 10_000 } },
])('segments of $segmentLength, dimensions of $headDim, rope $rope', (shape) => {
  for (const dtype of ['bfloat16', 'float16'] as const) {
    seededTest(`${dtype} costs at most twice its rounding`, (rng) => {
      const config = { heads: HEADS, ...shape, dtype };
      const stream = device.createStream(config);
      const input = makeInput(stream.config, TOKENS, rng);
      const actual = decode(dtype, stream.attendSync(dataOf(input)));
      const { q, k, v } = input;
      const { output } = new ReferenceStream(config).attend({ q: q.values, k: k.values, v: v.values });
      const errors = errorsByHead(actual, output, HEADS, shape.headDim);
      const roundings = errorsByHead(rounded(dtype, output), output, HEADS, shape.headDim);
      if (process.env.INFINI_PRINT_ERRORS) console.log({ ...config, errors, roundings });
      for (const [head, error] of errors.entries())
        expect(error).toBeLessThanOrEqual(ROUNDING_ERRORS * roundings[head]);
      stream.close();
    });
  }
});

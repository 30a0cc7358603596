import fc from 'fast-check';
import type { Device, MemoryStream, ResolvedConfig, StreamConfig } from '../../lib';
import { allowedErrors, errorsByHead } from '../support/accuracy';
import { onCuda, openTestDevice } from '../support/device';
import { around, cut, dataOf, type MadeInput, makeInput } from '../support/inputs';
import { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { sizes as testSizes } from '../support/sizes';
import { stateOf } from '../support/state';
import { bytesOf, decode } from '../support/tensors';

/**
 * Results do not depend on how tokens are split among calls. On the CPU not in a single bit; on CUDA the state does not
 * in a single bit, and outputs do within their accuracy (one token at a time is another kernel's work).
 */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

/** No logit of each head is larger, by Cauchy and Schwarz. */
function largestLogits({ q, k }: MadeInput, { heads, kvHeads, headDim, scale }: ResolvedConfig): number[] {
  const largest = Array.from({ length: heads + kvHeads }, () => 0);
  for (const [values, first, count] of [[q.values, 0, heads] as const, [k.values, heads, kvHeads] as const])
    for (let row = 0; row < values.length / headDim; row++) {
      const norm = Math.hypot(...values.subarray(row * headDim, (row + 1) * headDim));
      largest[first + (row % count)] = Math.max(largest[first + (row % count)], norm);
    }
  const group = heads / kvHeads;
  return largest.slice(0, heads).map((norm, h) => norm * largest[heads + Math.floor(h / group)] * scale);
}

interface Run {
  output: Buffer;
  stream: MemoryStream;
}

function runSync(config: StreamConfig, input: MadeInput, sizes: number[]): Run {
  const stream = device.createStream(config);
  const outputs = cut(input, sizes).map((piece) => bytesOf(stream.attendSync(dataOf(piece))));
  return { output: Buffer.concat(outputs), stream };
}

async function runAsync(config: StreamConfig, input: MadeInput, sizes: number[]): Promise<Run> {
  const stream = device.createStream(config);
  const outputs = await Promise.all(cut(input, sizes).map((piece) => stream.attend(dataOf(piece))));
  return { output: Buffer.concat(outputs.map(bytesOf)), stream };
}

function expectSame(run: Run, whole: Run, what: string, input: MadeInput): void {
  if (!run.output.equals(whole.output)) {
    const { dtype, heads, valueDim: dim, rope } = run.stream.config;
    const numbers = ({ output }: Run) => {
      const { buffer } = Uint8Array.from(output);
      return decode(dtype, dtype === 'float32' ? new Float32Array(buffer) : new Uint16Array(buffer));
    };
    const wanted = numbers(whole);
    const maxLogit = largestLogits(input, run.stream.config);
    const errors = errorsByHead(numbers(run), wanted, heads, dim);
    const allowed = onCuda
      ? allowedErrors({ dtype, wanted, heads, dim, rope: rope !== null, maxLogit })
      : errors.map(() => 0);
    if (!errors.every((error, head) => error <= allowed[head]))
      throw new Error(`${what} differs from the whole by ${errors}, allowed ${allowed}`);
  }
  expect(stateOf(run.stream)).toEqual(stateOf(whole.stream));
}

const configs = fc.record({
  groups: fc.constantFrom([1, 1], [2, 2], [4, 2], [4, 1], [8, 2]),
  headDim: fc.constantFrom(1, 2, 8, 16, 17, 40, 64),
  valueDim: fc.constantFrom(1, 5, 8, 24, 64),
  segmentLength: fc.constantFrom(1, 3, 16, 31, 64, 70),
  rule: fc.constantFrom('linear' as const, 'delta' as const),
  dtype: fc.constantFrom('float32' as const, 'bfloat16' as const, 'float16' as const),
  rope: fc.boolean(),
  emptyRead: fc.constantFrom('gated' as const, 'local' as const),
  tokens: fc.integer({ min: 1, max: 200 }),
  draw: fc.integer({ min: 0, max: 2 ** 31 }),
  level: fc.constantFrom(0, 0, -3, -40),
});

seededTest('whole, token by token and in random pieces, by attendSync and by attend', async (rng) => {
  let runs = 0;
  let crossings = 0;
  const property = fc.asyncProperty(
    configs,
    async ({ groups: [heads, kvHeads], draw, level, tokens, ...rest }) => {
      const random = new Rng(draw);
      const rope = rest.rope && rest.headDim % 2 === 0 ? { theta: 10_000 } : null;
      const gate = Array.from({ length: heads }, () => random.normal());
      const config: StreamConfig = { ...rest, heads, kvHeads, rope, gate };
      const input = makeInput({ ...rest, heads, kvHeads }, tokens, random, {
        k: around(level),
        q: around(level / 2),
      });
      const whole = runSync(config, input, [tokens]);
      const singles = new Array<number>(tokens).fill(1);
      const pieces = random.pieces(tokens, Math.max(2, Math.floor(tokens / 2)));
      const others: [string, Run][] = [
        ['token by token', runSync(config, input, singles)],
        ['in pieces', runSync(config, input, pieces)],
        ['token by token, asynchronously', await runAsync(config, input, singles)],
        ['in pieces, asynchronously', await runAsync(config, input, pieces)],
      ];
      for (const [what, run] of others) expectSame(run, whole, what, input);
      runs += others.length;
      crossings += whole.stream.segments;
      for (const { stream } of [whole, ...others.map(([, run]) => run)]) stream.close();
    },
  );
  await fc.assert(property, { numRuns: testSizes.splitRuns, seed: rng.bits() | 0 });
  expect(runs).toBeGreaterThanOrEqual(4 * testSizes.splitRuns);
  expect(crossings).toBeGreaterThan(testSizes.splitRuns / 2);
});

seededTest('long segments of wide heads, whole and in pieces that fit no tile', async (rng) => {
  for (const dtype of ['float32', 'bfloat16'] as const) {
    const shape = { heads: 2, kvHeads: 1, headDim: 128, valueDim: 100, dtype };
    const config: StreamConfig = { ...shape, segmentLength: 513, rope: { theta: 500_000 } };
    const input = makeInput(shape, 1300, rng);
    const whole = runSync(config, input, [1300]);
    const pieces = [1, 63, 65, 1, 300, 83, 1, 500, 285, 1];
    for (const sizes of [pieces, rng.pieces(1300, 200)]) {
      const run = runSync(config, input, sizes);
      expectSame(run, whole, `in pieces of ${sizes}`, input);
      run.stream.close();
    }
    expect(whole.stream.segments).toBe(2);
    whole.stream.close();
  }
});

// On the CPU some rows and some segments are computed in float64, the others in float32: by their own numbers alone.
seededTest('tokens of very different strength, whole and in pieces', async (rng) => {
  for (const dtype of ['float32', 'bfloat16'] as const) {
    const shape = { heads: 4, kvHeads: 2, headDim: 16, valueDim: 24, dtype };
    for (const rope of [null, { theta: 10_000 }]) {
      const config: StreamConfig = { ...shape, segmentLength: 100, rope, rule: 'delta' };
      const tokens = 430;
      const strength = Array.from({ length: tokens }, () => 2 ** rng.uniform(-2, onCuda ? 1 : 4));
      const deep = Array.from({ length: tokens }, (_, t) => (t >= 200 && t < 300 && !onCuda ? -60 : 0));
      const input = makeInput(shape, tokens, rng, {
        q: (random, _, token) => strength[token] * random.normal(),
        k: (random, _, token) => deep[token] + strength[tokens - 1 - token] * random.normal(),
        v: (random, _, token) => (token === 380 && !onCuda ? 1e22 : 1) * random.normal(),
      });
      const whole = runSync(config, input, [tokens]);
      const singles = new Array<number>(tokens).fill(1);
      for (const sizes of [singles, rng.pieces(tokens, 50), rng.pieces(tokens, 150)]) {
        const run = runSync(config, input, sizes);
        expectSame(run, whole, `in pieces of ${sizes}`, input);
        run.stream.close();
      }
      expect(whole.stream.segments).toBe(4);
      whole.stream.close();
    }
  }
});

seededTest('retrieval of many queries is retrieval of each', async (rng) => {
  const shape = { heads: 4, kvHeads: 2, headDim: 24, valueDim: 17, dtype: 'float32' as const };
  const stream = device.createStream({ ...shape, segmentLength: 8 });
  stream.attendSync(dataOf(makeInput(shape, 40, rng)));
  const queries = makeInput(shape, 150, rng);
  const whole = bytesOf(stream.retrieveSync({ q: queries.q.data }));
  const each = cut(queries, new Array(150).fill(1)).map(({ q }) =>
    bytesOf(stream.retrieveSync({ q: q.data })),
  );
  const pieces = cut(queries, rng.pieces(150, 60)).map(({ q }) => stream.retrieve({ q: q.data }));
  expect(Buffer.concat(each).equals(whole)).toBe(true);
  expect(Buffer.concat((await Promise.all(pieces)).map(bytesOf)).equals(whole)).toBe(true);
  expect(whole.length).toBe(150 * 4 * 17 * 4);
  expect(whole.some((byte) => byte !== 0)).toBe(true);
  stream.close();
});

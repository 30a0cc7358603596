import type { Device, DType, MemoryStream, StreamConfig, Tensor } from '../../lib';
import { ReferenceStream } from '../reference/reference-stream';
import { errorsByHead, FLOAT32_ERROR } from '../support/accuracy';
import { onCuda, openTestDevice } from '../support/device';
import { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { sizes as testSizes } from '../support/sizes';
import { decode, emptyTensor, encode } from '../support/tensors';

/** A million tokens (fewer where kernels are emulated): the memory stays accurate, and neither work nor memory grows with the tokens. */
const { warmTokens: WARM, windowTokens: WINDOW } = testSizes;
const TOKENS = WARM + 2 * WINDOW;
const LARGEST_CALL = 2000;
/** M after a million tokens, and the output beside what M errs by, as relative norms. */
const MEMORY_ERROR = { float32: 2e-5, float16: 1e-3, bfloat16: 1e-3 };
const OUTPUT_ERROR = { float32: FLOAT32_ERROR, float16: 1e-3, bfloat16: 5e-3 };
/** z is a sum of positive terms in float64: only the rounding of sigma itself is left. */
const NORMALIZER_ERROR = 1e-6;
const RSS_GROWTH = 16 * 2 ** 20;
const TAIL = 3;

const HEADS = 2;
const DIM = 8;

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

/** The tokens of a long text, a call at a time, in the same few arrays. */
class Source {
  readonly q = new Float32Array(LARGEST_CALL * HEADS * DIM);
  readonly k = new Float32Array(LARGEST_CALL * DIM);
  readonly v = new Float32Array(LARGEST_CALL * DIM);
  readonly #rng: Rng;
  readonly #mean: number;
  readonly #dtype: DType;

  constructor(seed: number, mean: number, dtype: DType) {
    this.#rng = new Rng(seed);
    this.#mean = mean;
    this.#dtype = dtype;
  }

  next(tokens: number) {
    const rng = this.#rng;
    const q = this.q.subarray(0, tokens * HEADS * DIM);
    const k = this.k.subarray(0, tokens * DIM);
    const v = this.v.subarray(0, tokens * DIM);
    for (let i = 0; i < q.length; i++) q[i] = rng.uniform(-2, 2);
    for (let i = 0; i < k.length; i++) k[i] = rng.uniform(-3, 2);
    for (let i = 0; i < v.length; i++) v[i] = this.#mean + rng.uniform(-2, 2);
    const typed = (numbers: Float32Array): Tensor =>
      this.#dtype === 'float32' ? numbers : encode(this.#dtype, numbers);
    return { q: typed(q), k: typed(k), v: typed(v) };
  }
}

/** Both windows are cut alike and begin on a segment border, so their work can be compared call by call. */
function callSizes(rng: Rng): number[] {
  const window = rng.pieces(WINDOW, LARGEST_CALL);
  return [...rng.pieces(WARM, LARGEST_CALL), ...window, ...window];
}

interface Mark {
  units: number;
  allocatedBytes: number;
  rss: number;
}

function mark(): Mark {
  const { units, allocatedBytes } = device.stats();
  return { units, allocatedBytes, rss: process.memoryUsage.rss() };
}

/** Calls of even sizes are asynchronous. */
async function runNative(stream: MemoryStream, source: Source, sizes: number[]) {
  const { dtype } = stream.config;
  const out = emptyTensor(dtype, LARGEST_CALL * HEADS * DIM);
  const marks: Mark[] = [];
  const tail: Float64Array[] = [];
  let peak = 0;
  for (const [i, size] of sizes.entries()) {
    const view = out.subarray(0, size * HEADS * DIM).fill(dtype === 'float32' ? Number.NaN : 0xffff);
    const input = source.next(size);
    if (size % 2 === 0) await stream.attend(input, { out: view });
    else stream.attendSync(input, { out: view });
    if (i >= sizes.length - TAIL) tail.push(decode(dtype, view));
    if ([WARM, WARM + WINDOW, TOKENS].includes(stream.tokens)) marks.push(mark());
    if (stream.tokens > WARM) peak = Math.max(peak, process.memoryUsage.rss());
  }
  return { marks, tail, peak };
}

function runReference(config: StreamConfig, dtype: DType, source: Source, sizes: number[]) {
  const reference = new ReferenceStream(config);
  const tail: Float64Array[] = [];
  for (const [i, size] of sizes.entries()) {
    const { q, k, v } = source.next(size);
    const [q64, k64, v64] = [q, k, v].map((x) => decode(dtype, x));
    const { output } = reference.attend({ q: q64, k: k64, v: v64 });
    if (i >= sizes.length - TAIL) tail.push(output);
  }
  return { reference, tail };
}

const names = 'a million tokens of $dtype by the $rule rule, values around $mean, segments of $segmentLength';
describe.each([
  { rule: 'linear', mean: 0, segmentLength: 16, dtype: 'float32' },
  { rule: 'linear', mean: 1, segmentLength: 16, dtype: 'float32' },
  { rule: 'delta', mean: 0, segmentLength: 16, dtype: 'float32' },
  { rule: 'delta', mean: 1, segmentLength: 40, dtype: 'float32' },
  { rule: 'linear', mean: 1, segmentLength: 40, dtype: 'bfloat16' },
  { rule: 'delta', mean: 0, segmentLength: 40, dtype: 'bfloat16' },
] as const)(names, ({ rule, mean, segmentLength, dtype }) => {
  const shape: StreamConfig = { heads: HEADS, kvHeads: 1, headDim: DIM, segmentLength };
  const config: StreamConfig = { ...shape, rule, dtype, gate: [1, -1] };

  seededTest(`are remembered to ${MEMORY_ERROR[dtype]} in flat work and memory`, async (rng) => {
    expect(WARM % segmentLength).toBe(0);
    expect(WINDOW % segmentLength).toBe(0);
    const seed = rng.bits();
    const sizes = callSizes(rng);
    const stream = device.createStream(config);
    const { byteLength } = stream;
    const native = await runNative(stream, new Source(seed, mean, dtype), sizes);
    const wanted = runReference(config, dtype, new Source(seed, mean, dtype), sizes);

    expect([stream.tokens, stream.segments]).toEqual([TOKENS, TOKENS / segmentLength]);
    expect(wanted.reference.segments).toBe(stream.segments);
    const actual = stream.memory();
    const exact = wanted.reference.memory();
    const [matrixError] = errorsByHead(Float64Array.from(actual.matrix), exact.matrix, 1, DIM * DIM);
    expect(matrixError).toBeLessThanOrEqual(MEMORY_ERROR[dtype]);
    const [normalizerError] = errorsByHead(actual.normalizer, exact.normalizer, 1, DIM);
    expect(normalizerError).toBeLessThanOrEqual(NORMALIZER_ERROR);

    // An output is a mixture of A_dot, as accurate as ever, and A_mem, which errs as M does.
    expect(native.tail.length).toBe(TAIL);
    for (const [i, output] of native.tail.entries()) {
      for (const error of errorsByHead(output, wanted.tail[i], HEADS, DIM)) {
        expect(error).toBeLessThanOrEqual(MEMORY_ERROR[dtype] + OUTPUT_ERROR[dtype]);
      }
    }

    const [warm, half, whole] = native.marks;
    const units = [half.units - warm.units, whole.units - half.units];
    expect(units[0]).toBeGreaterThan(0);
    // On CUDA a call is cut by the time it takes, so only the order of the number is the same.
    expect(Math.abs(units[1] / units[0] - 1)).toBeLessThan(onCuda ? 0.5 : 0.03);
    // Blocks may be kept for reuse, so the second window may allocate less than the first, but not more.
    const bytes = [half.allocatedBytes - warm.allocatedBytes, whole.allocatedBytes - half.allocatedBytes];
    expect(bytes[1]).toBeLessThanOrEqual(1.03 * bytes[0] + WINDOW / segmentLength);
    expect(stream.byteLength).toBe(byteLength);
    if (!process.env.INFINI_STREAM_SANITIZED) {
      expect(native.peak - warm.rss).toBeLessThanOrEqual(RSS_GROWTH);
    }
    stream.close();
  });
});

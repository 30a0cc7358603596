import type { Device, MemoryStream, Tensor } from '../../index';
import { median, quantile } from '../format';
import { mix } from '../random';
import { decode, encode } from './sixteen';
import { cut, flopsPerSegment, type Shape } from './work';

export interface Spread {
  median: number;
  min: number;
  max: number;
}

export interface Measured extends Shape {
  tokensPerCall: number;
  runs: number;
  tokensPerSecond: Spread;
  gflops: Spread;
  /** Microseconds a token through attendSync, over whole segments: the mean holds the absorptions too. */
  decode: { tokens: number; median: number; p90: number; mean: number };
  streamBytes: number;
  /** Relative difference between a call and the same tokens in pieces. */
  splitError: number;
}

interface Input {
  q: Tensor;
  k: Tensor;
  v: Tensor;
}

const LEAST_RUNS = 3;
const SPLIT_LIMIT = { float32: 2e-6, bfloat16: 2 ** -8, float16: 2 ** -10 };

/** Uniform noise of unit variance. */
function noise(length: number, seed: number): Float32Array {
  const values = new Float32Array(length);
  for (let i = 0; i < length; i++) values[i] = (mix(seed + i) / 2 ** 31 - 1) * Math.sqrt(3);
  return values;
}

function makeInput({ heads, kvHeads, headDim, dtype }: Shape, tokens: number): Input {
  const make = (rows: number, seed: number) => encode(noise(tokens * rows * headDim, mix(seed)), dtype);
  return { q: make(heads, 1), k: make(kvHeads, 2), v: make(kvHeads, 3) };
}

function slice({ q, k, v }: Input, { heads, kvHeads, headDim }: Shape, from: number, to: number): Input {
  const part = (tensor: Tensor, rows: number) => tensor.subarray(from * rows * headDim, to * rows * headDim);
  return { q: part(q, heads), k: part(k, kvHeads), v: part(v, kvHeads) };
}

function open(device: Device, shape: Shape): MemoryStream {
  const { heads, kvHeads, headDim, segment: segmentLength, dtype, rule } = shape;
  return device.createStream({ heads, kvHeads, headDim, segmentLength, dtype, rule });
}

/** Before any time is taken: finite outputs, and pieces that give what the whole gives. */
async function verify(device: Device, shape: Shape, input: Input, tokens: number): Promise<number> {
  const width = shape.heads * shape.headDim;
  using whole = open(device, shape);
  const expected = decode(await whole.attend(input), shape.dtype);
  if (!expected.every(Number.isFinite)) throw new Error('the output holds a number that is not finite');

  using pieces = open(device, shape);
  let error = 0;
  let norm = 0;
  const cuts = [0, 1, 8, Math.floor(tokens / 3), Math.floor(tokens / 3) + 1, tokens].filter(
    (at) => at <= tokens,
  );
  for (let i = 1; i < cuts.length; i++) {
    if (cuts[i] <= cuts[i - 1]) continue;
    const part = await pieces.attend(slice(input, shape, cuts[i - 1], cuts[i]));
    const got = decode(part, shape.dtype);
    for (let j = 0, at = cuts[i - 1] * width; j < got.length; j++, at++) {
      error += (got[j] - expected[at]) ** 2;
      norm += expected[at] ** 2;
    }
  }
  const relative = Math.sqrt(error / norm);
  if (!(relative <= SPLIT_LIMIT[shape.dtype])) {
    throw new Error(`pieces differ from the whole by ${relative.toExponential(1)} (relative norm)`);
  }
  return relative;
}

/** One token at a time, for whole segments, as many as fit into the time. */
function measureDecode(stream: MemoryStream, shape: Shape, input: Input, tokens: number, seconds: number) {
  const steps = Math.min(tokens, shape.segment);
  const inputs = Array.from({ length: steps }, (_, t) => slice(input, shape, t, t + 1));
  const out = inputs[0].q.slice();
  const times: number[] = [];
  const begin = performance.now();
  do {
    for (let t = 0; t < shape.segment; t++) {
      const start = process.hrtime.bigint();
      stream.attendSync(inputs[t % steps], { out });
      times.push(Number(process.hrtime.bigint() - start) / 1000);
    }
  } while (performance.now() - begin < 1000 * seconds);
  const mean = times.reduce((sum, time) => sum + time, 0) / times.length;
  return { tokens: times.length, median: median(times), p90: quantile(times, 0.9), mean };
}

const spread = (values: number[]): Spread => ({
  median: median(values),
  min: Math.min(...values),
  max: Math.max(...values),
});

export async function measure(
  device: Device,
  shape: Shape,
  seconds: number,
  signal: AbortSignal,
  onRun: () => void = () => {},
): Promise<Measured> {
  using stream = open(device, shape); // first, since it refuses a shape that makes no sense
  const { tokens, calls } = cut(shape);
  const input = makeInput(shape, tokens);
  const splitError = await verify(device, shape, input, tokens);

  const out = input.q.slice();
  // A full memory first: an empty one would save the first segment its retrieval.
  for (let done = 0; done < shape.segment; done += tokens) await stream.attend(input, { out, signal });
  const times: number[] = [];
  const begin = performance.now();
  while (times.length < LEAST_RUNS || performance.now() - begin < 1000 * seconds) {
    const start = performance.now();
    for (let call = 0; call < calls; call++) await stream.attend(input, { out, signal });
    times.push((performance.now() - start) / 1000);
    onRun();
  }
  const perRun = tokens * calls;
  const flops = (flopsPerSegment(shape) * perRun) / shape.segment;
  return {
    ...shape,
    tokensPerCall: tokens,
    runs: times.length,
    tokensPerSecond: spread(times.map((time) => perRun / time)),
    gflops: spread(times.map((time) => flops / time / 1e9)),
    decode: measureDecode(stream, shape, input, tokens, seconds / 4),
    streamBytes: stream.byteLength,
    splitError,
  };
}

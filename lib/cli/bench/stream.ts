import type { Device, MemoryStream, Tensor } from '../../index';
import { mix } from '../random';
import type { Case, Contender, Run } from './contender';
import { outputOf, relativeError } from './reference';
import { decode, encode } from './sixteen';
import { cut, type Shape } from './work';

interface Input {
  q: Tensor;
  k: Tensor;
  v: Tensor;
}

const SPLIT_LIMIT = { float32: 2e-6, bfloat16: 2 ** -8, float16: 2 ** -10 };
const ERROR_LIMIT = { float32: 1e-5, bfloat16: 5e-3, float16: 1e-3 };

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

/** Finite outputs, and pieces that give what the whole gives. Returns their relative difference. */
async function compareCuts(device: Device, shape: Shape, input: Input, tokens: number): Promise<number> {
  const width = shape.heads * shape.headDim;
  using whole = open(device, shape);
  const expected = decode(await whole.attend(input), shape.dtype);
  if (!expected.every(Number.isFinite)) throw new Error('the output holds a number that is not finite');

  using pieces = open(device, shape);
  const got = new Float32Array(expected.length);
  const third = Math.floor(tokens / 3);
  const cuts = [...new Set([0, 1, 8, third, third + 1, tokens])].filter((at) => at <= tokens);
  for (const [i, from] of cuts.slice(0, -1).entries()) {
    const part = await pieces.attend(slice(input, shape, from, cuts[i + 1]));
    got.set(decode(part, shape.dtype), from * width);
  }
  const error = relativeError(got, expected);
  if (!(error <= SPLIT_LIMIT[shape.dtype]))
    throw new Error(`pieces differ from the whole by ${error.toExponential(1)} (relative norm)`);
  return error;
}

/** Some tokens of the first and the last head, in the second segment, against float64. Returns the largest relative error. */
async function compareExact(device: Device, shape: Shape, input: Input, tokens: number): Promise<number> {
  const { heads, kvHeads, headDim, segment, dtype } = shape;
  using stream = open(device, shape);
  const length = Math.min(segment, tokens);
  for (let done = 0; done < segment; done += length)
    await stream.attend(slice(input, shape, 0, Math.min(length, segment - done)));
  const { matrix, normalizer } = stream.memory();
  const rows = slice(input, shape, 0, length);
  const output = decode(await stream.attend(rows), dtype);
  let largest = 0;
  for (const head of new Set([0, heads - 1])) {
    const kvHead = Math.floor((head * kvHeads) / heads);
    const ofHead = (tensor: Tensor, all: number, one: number) => {
      const from = decode(tensor, dtype);
      const to = new Float32Array(length * headDim);
      for (let t = 0; t < length; t++)
        to.set(from.subarray((t * all + one) * headDim, (t * all + one + 1) * headDim), t * headDim);
      return to;
    };
    const own = {
      q: ofHead(rows.q, heads, head),
      k: ofHead(rows.k, kvHeads, kvHead),
      v: ofHead(rows.v, kvHeads, kvHead),
      matrix: matrix.subarray(kvHead * headDim * headDim),
      normalizer: normalizer.subarray(kvHead * headDim),
    };
    for (const token of new Set([0, 1, Math.floor(length / 2), length - 1].filter((t) => t < length))) {
      const at = (token * heads + head) * headDim;
      const error = relativeError(output.subarray(at, at + headDim), outputOf(own, shape, token));
      if (!(error <= ERROR_LIMIT[dtype]))
        throw new Error(`token ${token} of head ${head} is ${error.toExponential(1)} from float64`);
      largest = Math.max(largest, error);
    }
  }
  return largest;
}

/** infini-stream itself, from JavaScript: prefill through `attend`, decode through `attendSync`. */
export async function enterStream(device: Device, one: Case, signal: AbortSignal): Promise<Contender> {
  const stream = open(device, one); // first, since it refuses a shape that makes no sense
  const { tokens, calls } = cut(one);
  const input = makeInput(one, tokens);
  const about = {
    splitError: await compareCuts(device, one, input, tokens),
    error: await compareExact(device, one, input, tokens),
    bytes: stream.byteLength,
  };
  const out = input.q.slice();
  // A full memory first: an empty one would save the first segment its retrieval.
  for (let done = 0; done < one.segment; done += tokens) await stream.attend(input, { out, signal });

  const prefill = async (): Promise<Run> => {
    const start = performance.now();
    for (let call = 0; call < calls; call++) await stream.attend(input, { out, signal });
    return { seconds: (performance.now() - start) / 1000, tokens: tokens * calls };
  };
  const steps = Math.min(tokens, one.segment);
  const inputs = Array.from({ length: steps }, (_, t) => slice(input, one, t, t + 1));
  const result = inputs[0].q.slice();
  const decodeSegment = (): Run => {
    const microseconds: number[] = [];
    const start = process.hrtime.bigint();
    for (let t = 0, last = start; t < one.segment; t++) {
      stream.attendSync(inputs[t % steps], { out: result });
      const now = process.hrtime.bigint();
      microseconds.push(Number(now - last) / 1000);
      last = now;
    }
    const seconds = Number(process.hrtime.bigint() - start) / 1e9;
    return { seconds, tokens: one.segment, microseconds };
  };
  return {
    name: 'infini-stream',
    about,
    run: one.work === 'prefill' ? prefill : decodeSegment,
    close: () => stream.close(),
  };
}

import type { Device, DType, MemoryStream, Tensor } from '../../index';
import { type Input, open, slice } from './input';
import { absorbed, type HeadSegment, outputOf, relativeError } from './reference';
import { decode } from './sixteen';
import type { Shape } from './work';

/** Most that the same tokens in other pieces, or in other company, may differ: CUDA's kernels are not the same for both. */
export const SPLIT_LIMIT: Record<DType, number> = { float32: 2e-6, bfloat16: 2 ** -8, float16: 2 ** -10 };
const ERROR_LIMIT: Record<DType, number> = { float32: 1e-5, bfloat16: 5e-3, float16: 1e-3 };

/** Finite outputs, and pieces that give what the whole gives. Returns their relative difference. */
export async function checkCuts(device: Device, shape: Shape, input: Input, tokens: number): Promise<number> {
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

/** Appends a whole segment: the same tokens again and again, where there are fewer. Returns the outputs of the first ones. */
export async function appendSegment(stream: MemoryStream, shape: Shape, input: Input): Promise<Tensor> {
  const length = input.q.length / shape.heads / shape.headDim;
  let first: Tensor | undefined;
  for (let done = 0; done < shape.segment; done += length) {
    const output = await stream.attend(slice(input, shape, 0, Math.min(length, shape.segment - done)));
    first ??= output;
  }
  return first as Tensor;
}

/** What one head has of a segment of the input. */
function ofHead(stream: MemoryStream, shape: Shape, input: Input, head: number): HeadSegment {
  const { heads, kvHeads, headDim, segment, dtype } = shape;
  const kvHead = Math.floor((head * kvHeads) / heads);
  const { matrix, normalizer } = stream.memory();
  const rows = (tensor: Tensor, all: number, one: number) => {
    const from = decode(tensor, dtype);
    const length = from.length / all / headDim;
    const to = new Float32Array(segment * headDim);
    for (let t = 0; t < segment; t++) {
      const at = ((t % length) * all + one) * headDim;
      to.set(from.subarray(at, at + headDim), t * headDim);
    }
    return to;
  };
  return {
    q: rows(input.q, heads, head),
    k: rows(input.k, kvHeads, kvHead),
    v: rows(input.v, kvHeads, kvHead),
    matrix: matrix.subarray(kvHead * headDim ** 2, (kvHead + 1) * headDim ** 2),
    normalizer: normalizer.subarray(kvHead * headDim, (kvHead + 1) * headDim),
  };
}

/**
 * Of the first and the last head, in a segment that finds a memory: some tokens' outputs, and what the segment makes of the
 * memory, against float64. The stream has to be at a segment's beginning. Returns the largest relative error.
 */
export async function checkExact(stream: MemoryStream, shape: Shape, input: Input): Promise<number> {
  const { heads, headDim, segment, dtype } = shape;
  const both = [...new Set([0, heads - 1])];
  const before = both.map((head) => ofHead(stream, shape, input, head));
  const length = Math.min(segment, input.q.length / heads / headDim);
  const output = decode(await appendSegment(stream, shape, input), dtype);
  let largest = 0;
  const check = (what: string, error: number) => {
    if (!(error <= ERROR_LIMIT[dtype])) throw new Error(`${what} is ${error.toExponential(1)} from float64`);
    largest = Math.max(largest, error);
  };
  for (const [i, head] of both.entries()) {
    for (const token of new Set([0, 1, Math.floor(length / 2), length - 1].filter((t) => t < length))) {
      const at = (token * heads + head) * headDim;
      const error = relativeError(output.subarray(at, at + headDim), outputOf(before[i], shape, token));
      check(`token ${token} of head ${head}`, error);
    }
    const { matrix, normalizer } = ofHead(stream, shape, input, head);
    const wanted = absorbed(before[i], shape);
    check(`the memory of head ${head}`, relativeError(matrix, wanted.matrix));
    check(`the normaliser of head ${head}`, relativeError(normalizer, wanted.normalizer));
  }
  return largest;
}

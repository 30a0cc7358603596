import type { Device, MemoryStream, Tensor } from '../../index';
import type { Case, Contender, Run } from './contender';
import { type Input, makeInput, open, slice } from './input';
import { relativeError } from './reference';
import { decode } from './sixteen';
import { appendSegment, checkExact, SPLIT_LIMIT } from './verify';
import { bytesPerElement, cut } from './work';

/** Of q, k and v for all streams together; where there is more, streams are given the same tokens. */
const INPUT_BYTES = 256e6;
/** So many different tokens for each stream, in turn. */
const STEPS = 32;

/** Many streams: a segment of each through `attendBatch`, or one token of each through a prepared batch, again and again. */
export async function enterStreams(device: Device, one: Case, signal: AbortSignal): Promise<Contender> {
  const streams: MemoryStream[] = [];
  const close = () => {
    for (const stream of streams) stream.close();
  };
  try {
    streams.push(open(device, one));
    const [first] = streams;
    const filled = makeInput(one, Math.min(cut(one).tokens, one.segment));
    await appendSegment(first, one, filled);
    const about = { error: await checkExact(first, one, filled), bytes: 0 };
    while (streams.length < (one.streams ?? 1)) streams.push(first.fork());
    for (const { byteLength } of streams) about.bytes += byteLength;
    const run = await (one.work === 'step' ? stepping : batching)(device, one, streams, signal);
    return { name: 'infini-stream', about, run, close };
  } catch (error) {
    close();
    throw error;
  }
}

/** In company a stream gives what it gives alone. */
function checkAlone(one: Case, which: number, together: Tensor, alone: Tensor): void {
  const error = relativeError(decode(together, one.dtype), decode(alone, one.dtype));
  if (!(error <= SPLIT_LIMIT[one.dtype]))
    throw new Error(`stream ${which} differs from itself alone by ${error.toExponential(1)} (relative norm)`);
}

const firstAndLast = (streams: MemoryStream[]) => [...new Set([0, streams.length - 1])];

async function batching(device: Device, one: Case, streams: MemoryStream[], signal: AbortSignal) {
  const { heads, kvHeads, headDim, segment, dtype } = one;
  const fitting = cut(one);
  const [tokens, calls] = fitting.calls > 1 ? [fitting.tokens, fitting.calls] : [segment, 1];
  const bytesOfCall = tokens * (heads + 2 * kvHeads) * headDim * bytesPerElement(dtype);
  const different = Math.max(1, Math.min(streams.length, Math.floor(INPUT_BYTES / bytesOfCall)));
  const input = makeInput(one, different * tokens);
  const entries = streams.map((stream, i) => {
    const own = slice(input, one, (i % different) * tokens, ((i % different) + 1) * tokens);
    return { stream, ...own, out: own.q.slice() };
  });
  const call = async () => {
    for (const settled of await device.attendBatch(entries, { signal }))
      if (settled.status === 'rejected') throw settled.reason;
  };
  const forks = firstAndLast(streams).map((which) => ({ which, fork: streams[which].fork() }));
  await call();
  for (const { which, fork } of forks) {
    const { q, k, v, out } = entries[which];
    checkAlone(one, which, out, await fork.attend({ q, k, v }));
    fork.close();
  }
  for (let rest = 1; rest < calls; rest++) await call(); // to the segment's end
  return async (): Promise<Run> => {
    const start = performance.now();
    for (let i = 0; i < calls; i++) await call();
    return { seconds: (performance.now() - start) / 1000, tokens: segment * streams.length };
  };
}

async function stepping(device: Device, one: Case, streams: MemoryStream[]) {
  const width = one.heads * one.headDim;
  const batch = device.createBatch(streams); // closed with its streams
  const input = makeInput(one, STEPS * streams.length);
  const tokens = (step: number): Input =>
    slice(input, one, step * streams.length, (step + 1) * streams.length);
  const steps = Array.from({ length: STEPS }, (_, step) => tokens(step));
  const out = steps[0].q.slice();
  const forks = firstAndLast(streams).map((which) => ({ which, fork: streams[which].fork() }));
  for (let t = 0; t < one.segment; t++) {
    batch.stepSync({ ...steps[t % STEPS], out });
    for (const { which, fork } of forks) {
      const alone = fork.attendSync(slice(steps[t % STEPS], one, which, which + 1));
      checkAlone(one, which, out.subarray(which * width, (which + 1) * width), alone);
    }
  }
  for (const { fork } of forks) fork.close();
  return (): Run => {
    const start = performance.now();
    for (let t = 0; t < one.segment; t++) batch.stepSync({ ...steps[t % STEPS], out });
    return { seconds: (performance.now() - start) / 1000, tokens: one.segment * streams.length };
  };
}

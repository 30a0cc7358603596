import type { Device } from '../../index';
import type { Case, Contender, Run } from './contender';
import { makeInput, open, slice } from './input';
import { enterState } from './state';
import { enterStreams } from './streams';
import { appendSegment, checkCuts, checkExact } from './verify';
import { cut } from './work';

/** infini-stream itself, from JavaScript. */
export function enterOwn(device: Device, one: Case, signal: AbortSignal): Promise<Contender> {
  if (one.work === 'batch' || one.work === 'step') return enterStreams(device, one, signal);
  return one.work === 'state' ? enterState(device, one) : enterStream(device, one, signal);
}

/** One stream: prefill through `attend`, decode through `attendSync`. */
export async function enterStream(device: Device, one: Case, signal: AbortSignal): Promise<Contender> {
  const stream = open(device, one); // first, since it refuses a shape that makes no sense
  const { tokens, calls } = cut(one);
  const input = makeInput(one, tokens);
  // A full memory first: an empty one would save the first segment its retrieval.
  await appendSegment(stream, one, input);
  const about = {
    splitError: await checkCuts(device, one, input, tokens),
    error: await checkExact(stream, one, input),
    bytes: stream.byteLength,
  };
  const out = input.q.slice();

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

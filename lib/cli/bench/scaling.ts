import { type Device, type MemoryStream, openDevice } from '../../index';
import { count } from '../format';
import type { Machine } from '../machine';
import type { Case, Contender, Entry, Run, Work } from './contender';
import { type Input, makeInput, open, slice } from './input';
import { type Effort, type Measured, runCase } from './run';
import { enterOwn } from './stream';
import { checkExact } from './verify';
import { cut, type Shape } from './work';

/** One kind of work at several lengths of the stream, numbers of threads, or numbers of streams. */
export interface Curve {
  along: 'tokens' | 'threads' | 'streams';
  work: Work;
  points: (Measured & { at: number })[];
}

export interface ScalingReport extends Machine, Shape {
  command: string;
  threads: number;
  curves: Curve[];
}

type Base = Omit<Case, 'work'>;

/** Contenders of one curve take turns, as those of a case do; the first point is what others are compared with. */
async function curve(
  along: Curve['along'],
  one: Case,
  places: { at: number; enter: Entry['enter'] }[],
  effort: Effort,
  signal: AbortSignal,
): Promise<Curve> {
  const entries = places.map(({ at, enter }) => ({ name: `${count(at)} ${along}`, enter }));
  const { contenders } = await runCase(one, entries, null, effort, signal);
  return {
    along,
    work: one.work,
    points: contenders.map((measured, i) => ({ at: places[i].at, ...measured })),
  };
}

interface Place {
  tokens: number;
  stream: MemoryStream;
}

/** One stream that goes on and on; forks of it stay behind at the lengths that are asked for, in whole segments. */
export async function markPlaces(
  device: Device,
  shape: Shape,
  lengths: number[],
  signal: AbortSignal,
  onProgress: (tokens: number) => void,
): Promise<Place[]> {
  const { segment, heads, headDim } = shape;
  using stream = open(device, shape);
  const { tokens } = cut(shape);
  const input = makeInput(shape, tokens);
  const out = input.q.slice();
  const places: Place[] = [];
  try {
    for (const length of lengths) {
      const target = segment * Math.max(1, Math.round(length / segment));
      while (stream.tokens < target) {
        const count = Math.min(tokens, target - stream.tokens);
        const part = { out: out.subarray(0, count * heads * headDim), signal };
        await stream.attend(slice(input, shape, 0, count), part);
        onProgress(stream.tokens);
      }
      places.push({ tokens: stream.tokens, stream: stream.fork() });
    }
    return places;
  } catch (error) {
    for (const place of places) place.stream.close();
    throw error;
  }
}

/** From a place on, a window of so many tokens: all in one call, or one by one. Each run starts at the place again. */
async function enterPlace({ stream }: Place, one: Case, input: Input, window: number): Promise<Contender> {
  using checked = stream.fork();
  const about = { error: await checkExact(checked, one, input), bytes: stream.byteLength };
  const whole = slice(input, one, 0, window);
  const tokens = Array.from({ length: window }, (_, t) => slice(input, one, t, t + 1));
  const [out, result] = [whole.q.slice(), tokens[0].q.slice()];
  const run = async (): Promise<Run> => {
    using fork = stream.fork();
    const start = performance.now();
    if (one.work === 'prefill') await fork.attend(whole, { out });
    else for (const token of tokens) fork.attendSync(token, { out: result });
    return { seconds: (performance.now() - start) / 1000, tokens: window };
  };
  return { name: 'infini-stream', about, run, close: () => {} };
}

/** Time of a token against what came before it. */
export async function alongTokens(
  places: Place[],
  base: Base,
  effort: Effort,
  signal: AbortSignal,
): Promise<Curve[]> {
  const window = Math.min(cut(base).tokens, base.segment);
  const input = makeInput(base, window);
  const curves: Curve[] = [];
  for (const work of ['prefill', 'decode'] as const) {
    const entries = places.map((place) => ({
      at: place.tokens,
      enter: (one: Case) => enterPlace(place, one, input, window),
    }));
    curves.push(await curve('tokens', { ...base, work }, entries, effort, signal));
  }
  return curves;
}

/** Throughput of one stream on a device of so many threads. */
export async function alongThreads(
  counts: number[],
  base: Base,
  effort: Effort,
  signal: AbortSignal,
): Promise<Curve[]> {
  const enter =
    (threads: number): Entry['enter'] =>
    async (one, signal) => {
      const device = openDevice('cpu', { threads });
      try {
        const contender = await enterOwn(device, { ...one, threads }, signal);
        return { ...contender, close: () => device.close() }; // and its streams
      } catch (error) {
        device.close();
        throw error;
      }
    };
  const curves: Curve[] = [];
  for (const work of ['prefill', 'decode'] as const) {
    const places = counts.map((at) => ({ at, enter: enter(at) }));
    curves.push(await curve('threads', { ...base, work }, places, effort, signal));
  }
  return curves;
}

/** Throughput of so many streams that step together. */
export async function alongStreams(
  device: Device,
  counts: number[],
  base: Base,
  effort: Effort,
  signal: AbortSignal,
): Promise<Curve[]> {
  const places = counts.map((at) => ({
    at,
    enter: (one: Case, signal: AbortSignal) => enterOwn(device, { ...one, streams: at }, signal),
  }));
  return [await curve('streams', { ...base, work: 'step' }, places, effort, signal)];
}

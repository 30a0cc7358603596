import type { Tensor } from '../../lib';
import { detach, type Placed, place } from './arrays';
import { type Inputs, type Subject, Violation } from './subject';
import type { World } from './world';

export type Method = 'attend' | 'attendSync' | 'retrieve' | 'retrieveSync';
export type AnyCall = (input: unknown, options?: unknown) => unknown;
export const METHODS: Method[] = ['attend', 'attend', 'attend', 'attendSync', 'retrieve', 'retrieveSync'];

const EXTREMES = [
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  3e38,
  -3.4e38,
  1e-45,
  -0,
  90,
  -100,
];

/** A call as it should be made: arrays in odd places, decent numbers (but for one, at times). */
interface Prepared {
  method: Method;
  placed: { q: Placed; k?: Placed; v?: Placed };
  input: Record<string, unknown>;
  /** The same in plain arrays. */
  copies: Inputs;
  outLength: number;
}

export function prepare(
  world: World,
  { stream }: Subject,
  method: Method,
  tokens = world.rng.pick([1, 1, 1, 2, 3, world.rng.int(1, 40), world.rng.int(1, 200)]),
): Prepared {
  const { rng, hostile } = world;
  const { heads, kvHeads, headDim, valueDim, dtype } = stream.config;
  const extreme = rng.uniform() < 0.1;
  const make = (width: number): Placed => {
    const one = place(hostile, dtype, tokens * width);
    fill(world, one.raw);
    if (extreme && rng.uniform() < 0.5) {
      const at = rng.int(0, one.raw.length - 1);
      one.raw[at] = dtype === 'float32' ? rng.pick(EXTREMES) : rng.int(0, 65535);
    }
    return one;
  };
  const placed: Prepared['placed'] = { q: make(heads * headDim) };
  if (method.startsWith('attend')) {
    placed.k = make(kvHeads * headDim);
    placed.v = make(kvHeads * valueDim);
  }
  const input: Record<string, unknown> = {};
  const copies: Record<string, Tensor> = {};
  for (const [name, { array, raw }] of Object.entries(placed) as [string, Placed][]) {
    input[name] = array;
    copies[name] = raw.slice();
  }
  return { method, placed, input, copies: copies as unknown as Inputs, outLength: tokens * heads * valueDim };
}

/** Numbers around 0 in every dtype. */
function fill(world: World, array: Tensor): void {
  const { rng } = world;
  const isFloat = array instanceof Float32Array;
  for (let i = 0; i < array.length; i++) {
    const bits = rng.bits();
    array[i] = isFloat ? (bits / 2 ** 31 - 1) * 4 : (bits & 0x83ff) | 0x3800;
  }
}

export function signalOf(world: World): AbortSignal {
  const { rng } = world;
  const controller = new AbortController();
  world.controllers.push(controller);
  if (world.controllers.length > 8) world.controllers.shift();
  const reason = rng.pick([undefined, 'why', new Error('reason'), null]);
  const abort = () => world.abort(controller, reason);
  rng.pick<() => unknown>([
    abort,
    () => setImmediate(abort),
    () => setTimeout(abort, rng.int(0, 5)),
    () => queueMicrotask(abort),
    () => process.nextTick(abort),
    () => {},
  ])();
  return controller.signal;
}

/** A valid call: it must succeed, or fail for a reason that its twin or the state of the stream confirms. */
export function validCall(world: World, subject = world.subject()): void {
  const { rng, hostile } = world;
  const prepared = prepare(world, subject, rng.pick(METHODS));
  const { method, placed, input, copies, outLength } = prepared;
  const options: { out?: Tensor; signal?: AbortSignal } = {};
  let out: Placed | undefined;
  if (rng.uniform() < 0.4) {
    const { dtype } = subject.stream.config;
    const overlap = placed.q.raw.length === outLength && !isExotic(placed.q.raw) && rng.uniform() < 0.5;
    out = overlap ? placed.q : place(hostile, dtype, outLength, 'plain');
    options.out = out.array;
  }
  const isAsync = !method.endsWith('Sync');
  if (isAsync && rng.uniform() < 0.3) options.signal = signalOf(world);
  hostile.notes.push(method, JSON.stringify(Object.keys(options)));
  const call = () => (subject.stream[method] as AnyCall).call(subject.stream, input, options);
  const before = out?.raw.slice();
  const slot = subject.slot();
  const accept = (result: unknown): void => {
    const fresh = result !== options.out;
    if (out && fresh && (!isAsync || out.raw.length > 0))
      throw new Violation(`${method} returned another array than out`);
    const output = (fresh || !out ? (result as Tensor) : out.raw).slice();
    slot(() => subject.agree(copies, output));
  };
  const refuse = (code: string, error: unknown): void => {
    const excused =
      (code === 'ERR_CLOSED' && subject.closed) ||
      (code === 'ERR_BUSY' && !isAsync && subject.pending > 0) ||
      (code === 'ABORT_ERR' && options.signal?.aborted);
    const nonFinite = code === 'ERR_NON_FINITE';
    slot(() => nonFinite && subject.agreeOnRefusal(copies, error as { code?: string }));
    if (!nonFinite && !excused) throw new Violation(`a valid ${method} failed`, { cause: error });
    if (out && before && out !== placed.q && out.raw.length > 0 && !same(before, out.raw)) {
      throw new Violation(`a failed ${method} wrote to out`);
    }
  };
  if (!isAsync) {
    let result: unknown;
    try {
      result = call();
    } catch (error) {
      refuse(world.judge(method, error), error);
      return;
    }
    world.count('ok');
    accept(result);
    return;
  }
  const end = subject.begin(!options.signal && !subject.closed);
  const over =
    <A extends unknown[]>(then: (...args: A) => void) =>
    (...args: A) => {
      then(...args);
      end();
    };
  world.follow(method, call, over(accept), over(refuse));
  // The inputs are the caller's again at once.
  for (const { raw } of Object.values(placed)) {
    const dice = rng.uniform();
    if (raw === out?.raw) continue;
    if (dice < 0.3) raw.fill(7);
    else if (dice < 0.4) detach(raw.buffer as ArrayBuffer);
    else if (dice < 0.6) world.remember(raw.buffer);
  }
  if (out && out !== placed.q && rng.uniform() < 0.1) detach(out.raw.buffer as ArrayBuffer);
}

const isExotic = ({ buffer }: Tensor) =>
  !(buffer instanceof ArrayBuffer) || (buffer as { resizable?: boolean }).resizable === true;
const same = (a: Tensor, b: Tensor) => Buffer.compare(bytes(a), bytes(b)) === 0;
const bytes = (a: Tensor) => Buffer.from(a.buffer as ArrayBuffer, a.byteOffset, a.byteLength);

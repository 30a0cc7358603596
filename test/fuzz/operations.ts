import { Device, listDevices, MemoryStream, openDevice, type Tensor } from '../../lib';
import { anyArray, classOf, detach, type Placed, place } from './arrays';
import { type Inputs, type Subject, Violation } from './subject';
import { isStream, type World } from './world';

type Method = 'attend' | 'attendSync' | 'retrieve' | 'retrieveSync';
type AnyCall = (input: unknown, options?: unknown) => unknown;
const METHODS: Method[] = ['attend', 'attend', 'attend', 'attendSync', 'retrieve', 'retrieveSync'];

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

function prepare(world: World, { stream }: Subject, method: Method): Prepared {
  const { rng, hostile } = world;
  const { heads, kvHeads, headDim, valueDim, dtype } = stream.config;
  const tokens = rng.pick([1, 1, 1, 2, 3, rng.int(1, 40), rng.int(1, 200)]);
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

function signalOf(world: World): AbortSignal {
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
    const overlap = placed.q.raw.length === outLength && !isExotic(placed.q.array) && rng.uniform() < 0.5;
    out = overlap ? placed.q : place(hostile, dtype, outLength, true);
    options.out = out.array;
  }
  const isAsync = !method.endsWith('Sync');
  if (isAsync && rng.uniform() < 0.3) options.signal = signalOf(world);
  hostile.notes.push(method, JSON.stringify(Object.keys(options)));
  const call = () => (subject.stream[method] as AnyCall).call(subject.stream, input, options);
  const before = out?.raw.slice();
  const accept = (result: unknown): void => {
    const fresh = result !== options.out;
    if (out && fresh && (!isAsync || out.raw.length > 0))
      throw new Violation(`${method} returned another array than out`);
    subject.agree(copies, fresh || !out ? (result as Tensor) : out.raw);
  };
  const refuse = (code: string, error: unknown): void => {
    const excused =
      (code === 'ERR_CLOSED' && subject.closed) ||
      (code === 'ERR_BUSY' && !isAsync && subject.pending > 0) ||
      (code === 'ABORT_ERR' && options.signal?.aborted);
    if (code === 'ERR_NON_FINITE') subject.agreeOnRefusal(copies, error as { code?: string });
    else if (!excused) throw new Violation(`a valid ${method} failed`, { cause: error });
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
  subject.pending++;
  const over =
    <A extends unknown[]>(then: (...args: A) => void) =>
    (...args: A) => {
      subject.pending--;
      then(...args);
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

/** A call with something wrong in it, or some trap: whether it succeeds is open, how it fails is not. */
export function hostileCall(world: World, subject = world.subject()): void {
  const { rng, hostile } = world;
  const { method, placed, input, outLength } = prepare(world, subject, rng.pick(METHODS));
  for (const { raw } of Object.values(placed)) world.remember(raw.buffer);
  let given: unknown = input;
  let options: unknown = {};
  const option = () => options as Record<string, unknown>;
  const spoil: (() => void)[] = [
    () => {
      input[rng.pick(['q', 'k', 'v', 'extra'])] = hostile.anything();
    },
    () => {
      input[rng.pick(['q', 'k', 'v'])] = anyArray(hostile);
    },
    () => {
      input[rng.pick(['q', 'k', 'v'])] = rng.pick([placed.q.array, placed.q.raw.subarray(1)]);
    },
    () => {
      delete input[rng.pick(['q', 'k', 'v'])];
    },
    () => {
      given = hostile.lure(given as Record<string, unknown>);
    },
    () => {
      given = hostile.proxy(given as object);
    },
    () => {
      given = hostile.anything();
    },
    () => {
      option().out = anyArray(hostile);
    },
    () => {
      option().out = place(hostile, subject.stream.config.dtype, outLength).array;
    },
    () => {
      const { array } = place(hostile, subject.stream.config.dtype, outLength, true);
      option().out = Object.defineProperty(array, 'then', { get: () => hostile.ambush(undefined) });
    },
    () => {
      option().out = hostile.anything();
    },
    () => {
      option().signal = hostile.anything();
    },
    () => {
      option().signal = fakeSignal(world);
    },
    () => {
      option().extra = 1;
    },
    () => {
      options = hostile.lure(options as Record<string, unknown>);
    },
    () => {
      options = hostile.anything();
    },
  ];
  for (let i = rng.int(1, 3); i > 0; i--) {
    if (typeof options !== 'object' || options === null) options = {};
    if (typeof given !== 'object' || given === null) given = input;
    try {
      rng.pick(spoil)();
    } catch (error) {
      if (!hostile.threw(error) && !(error instanceof TypeError)) throw error; // a trap that we sprang ourselves
    }
  }
  hostile.notes.push(`hostile ${method}`);
  subject.lose();
  const call = () => (subject.stream[method] as AnyCall).call(subject.stream, given, options);
  if (method.endsWith('Sync')) world.try(method, call);
  else {
    subject.pending++;
    const over = () => {
      subject.pending--;
    };
    world.follow(method, call, over, over);
  }
}

/** Signals that are none, or that are one with traps. */
function fakeSignal(world: World): unknown {
  const { rng, hostile } = world;
  const real = signalOf(world);
  const trap = (name: PropertyKey) =>
    Object.defineProperty(real, name, { get: () => hostile.ambush(undefined), configurable: true });
  return hostile.note(
    'signal',
    rng.pick<() => unknown>([
      () => ({ aborted: false, addEventListener() {}, removeEventListener() {} }),
      () => new EventTarget(),
      () => Object.create(AbortSignal.prototype),
      () => Object.create(real),
      () => hostile.proxy(real),
      () => trap('reason'),
      () => trap('aborted'),
      () => trap('addEventListener'),
      () => trap('constructor'),
      () => AbortSignal.abort(hostile.anything()),
      () => AbortSignal.timeout(rng.int(0, 5)),
      () => Object.freeze(real),
    ])(),
  );
}

/** What concerns one stream but carries no tensors. */
export function streamCall(world: World): void {
  const { rng } = world;
  const subject = world.subject();
  const { stream } = subject;
  const busyOrClosed = (action: () => void, name: string) => {
    world.hostile.notes.push(name);
    if (world.try(name, action) === subject.pending > 0)
      throw new Violation(`${name} with ${subject.pending} pending`);
  };
  rng.pick<() => void>([
    () => busyOrClosed(() => subject.reset(), 'reset'),
    () => busyOrClosed(() => world.adopt(subject.fork()), 'fork'),
    () => busyOrClosed(() => stream.memory(), 'memory'),
    () => subject.compare(),
    () => rng.uniform() < 0.2 && world.drop(subject),
    () => rng.uniform() < 0.05 && world.closeDevice(),
    () => {
      const name = rng.pick(['tokens', 'segments', 'byteLength', 'closed', 'config'] as const);
      if (Reflect.set(stream, name, world.hostile.anything())) throw new Violation(`${name} can be set`);
    },
    () => {
      if (stream.closed) throw new Violation('an open stream says it is closed');
      if (!Object.isFrozen(stream.config) || !Object.isFrozen(stream.config.gate))
        throw new Violation('a config melted');
    },
  ])();
}

/** Constructors, methods and accessors with receivers and arguments that fit nothing. */
export function misuse(world: World): void {
  const { rng, hostile } = world;
  const { stream } = world.subject();
  const Class = rng.pick([MemoryStream, Device] as const) as unknown as {
    new (...args: unknown[]): object;
    prototype: object;
  };
  const receivers = [
    hostile.anything,
    () => Object.create(Class.prototype),
    () => Class.prototype,
    () => Object.create(stream),
    () => world.safe,
    () => new Proxy(stream, {}),
    () => hostile.proxy(stream),
    () => Class,
  ];
  const receiver = rng.pick(receivers)();
  const args = [hostile.anything(), hostile.anything(), hostile.anything()].slice(rng.int(0, 3));
  if (rng.uniform() < 0.2) {
    const target = rng.pick<() => unknown>([
      () => Class,
      () => class extends Class {},
      () => Array,
      () => hostile.proxy(Class),
    ])();
    hostile.notes.push(`new ${Class.name}`);
    let made = false;
    try {
      made = Reflect.construct(Class, args, target as never) !== undefined;
    } catch (error) {
      world.judge('a constructor', error);
    }
    if (made) throw new Violation(`${Class.name} was constructed`);
    return;
  }
  const name = rng.pick(Reflect.ownKeys(Class.prototype).filter((key) => key !== 'constructor'));
  const { value, get } = Object.getOwnPropertyDescriptor(Class.prototype, name) as PropertyDescriptor;
  // The safe device and its streams must stay open.
  if (Class === Device && receiver === world.safe) return;
  hostile.notes.push(`${Class.name}.${String(name)}`);
  const call = () => Reflect.apply(value ?? get, receiver, args);
  if (name === 'attend' || name === 'retrieve') {
    const resolved = () => {
      throw new Violation(`${name} of a wrong receiver resolved`);
    };
    world.follow(name, call, resolved, () => {});
  } else if (world.try(String(name), call))
    throw new Violation(`${Class.name}.${String(name)} of a wrong receiver succeeded`);
}

/** Configurations mutated from a valid one, devices by any name. */
export function openings(world: World): void {
  const { rng, hostile } = world;
  const opened = (device: unknown) => (device as Device).close();
  rng.pick<() => void>([
    () => mutatedConfig(world),
    () => mutatedConfig(world),
    () => absurdConfig(world),
    () =>
      world.try('openDevice', () => opened((openDevice as AnyCall)(hostile.anything(), hostile.anything()))),
    () => world.try('openDevice', () => opened((openDevice as AnyCall)(hostile.string(), {}))),
    () =>
      world.try('openDevice', () =>
        opened((openDevice as AnyCall)('cpu', hostile.lure({ threads: hostile.primitive() }))),
      ),
    () => world.try('listDevices', () => (listDevices as AnyCall)(hostile.anything())),
    () => world.try('stats', () => world.safe.stats()),
  ])();
}

function mutatedConfig(world: World): void {
  const { rng, hostile } = world;
  let config: unknown = { ...world.config() };
  const keys = [
    'heads',
    'kvHeads',
    'headDim',
    'valueDim',
    'segmentLength',
    'rule',
    'gate',
    'scale',
    'rope',
    'emptyRead',
    'dtype',
    'extra',
    'toString',
  ];
  for (let i = rng.int(0, 3); i > 0; i--) {
    const key = rng.pick(keys);
    let value = rng.uniform() < 0.5 ? hostile.number() : hostile.anything();
    if (key === 'rope' && rng.uniform() < 0.5) value = hostile.lure({ theta: value });
    if (key === 'gate' && rng.uniform() < 0.5)
      value = rng.pick([anyArray(hostile), [1, value], { length: value }]);
    if (key === 'heads' && value === 1024 && rng.uniform() < 0.9) value = 8;
    (config as Record<string, unknown>)[key] = value;
  }
  if (rng.uniform() < 0.2) config = hostile.lure(config as Record<string, unknown>);
  if (rng.uniform() < 0.1) config = hostile.proxy(config as object);
  hostile.notes.push('mutated config');
  const device = world.device();
  world.try('createStream', () => {
    const stream = (device.createStream as AnyCall).call(device, config);
    if (!isStream(stream)) throw new Violation('createStream made no stream');
    const { heads, headDim, kvHeads, valueDim, dtype } = stream.config;
    const Class = classOf(dtype);
    // One token: its cost is bounded, whatever the configuration.
    const one = [heads * headDim, kvHeads * headDim, kvHeads * valueDim].map((length) => new Class(length));
    const result = stream.attendSync({ q: one[0], k: one[1], v: one[2] });
    stream.close();
    if (result.length !== heads * valueDim) throw new Violation('an output of another length');
  });
}

function absurdConfig(world: World): void {
  const { rng, hostile } = world;
  const config = {
    heads: rng.pick([1024, 1e9, 512]),
    headDim: rng.pick([256, 257, 255]),
    segmentLength: rng.pick([65536, 65537, 1e12]),
  };
  hostile.notes.push(JSON.stringify(config));
  world.try('createStream', () => world.device().createStream(config).close());
}

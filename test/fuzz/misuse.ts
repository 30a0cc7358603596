import { Batch, Device, DeviceTensor, listDevices, MemoryStream, openDevice } from '../../lib';
import { anyArray, classOf } from './arrays';
import { Violation } from './subject';
import type { AnyCall } from './valid-call';
import type { World } from './world';

/** What concerns one stream but carries no tensors. */
export function streamCall(world: World): void {
  const { rng } = world;
  const subject = world.subject();
  const { stream } = subject;
  const busyOrClosed = (action: () => void, name: string) => {
    world.hostile.notes.push(name);
    const succeeded = world.try(name, action);
    const wrong = succeeded ? subject.queued > 0 : subject.pending === 0;
    if (wrong)
      throw new Violation(`${name} ${succeeded ? 'succeeded' : 'failed'}, ${subject.pending} pending`);
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

const asynchronous = new Set<unknown>([
  'attend',
  'retrieve',
  'snapshot',
  'attendBatch',
  'restore',
  'read',
  'step',
]);

/** Constructors, methods and accessors with receivers and arguments that fit nothing. */
export function misuse(world: World): void {
  const { rng, hostile } = world;
  const { stream } = world.subject();
  const Class = rng.pick([MemoryStream, Device, DeviceTensor, Batch] as const) as unknown as {
    new (...args: unknown[]): object;
    prototype: object;
  };
  const receivers = [
    hostile.anything,
    () => Object.create(Class.prototype),
    () => Class.prototype,
    () => Object.create(stream),
    () => (Class === Device ? stream : world.safe),
    () => (Class === MemoryStream ? world.tensor() : stream),
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
  hostile.notes.push(`${Class.name}.${String(name)}`);
  const call = () => Reflect.apply(value ?? get, receiver, args);
  if (asynchronous.has(name)) {
    const resolved = () => {
      throw new Violation(`${String(name)} of a wrong receiver resolved`);
    };
    world.follow(String(name), call, resolved, () => {});
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
    () => tensorMisuse(world),
    () => tensorMisuse(world),
    () => world.try('listDevices', () => (listDevices as AnyCall)(hostile.anything())),
    () => world.try('stats', () => world.safe.stats()),
  ])();
}

/** Tensors, host buffers and batches from whatever there is. */
function tensorMisuse(world: World): void {
  const { rng, hostile } = world;
  const device = world.device();
  const maybe = (value: unknown) => (rng.uniform() < 0.6 ? value : hostile.anything());
  // Gigabytes that this machine may well have would only take time.
  const tame = (value: unknown) => (typeof value === 'number' && value > 1000 ? -value : value);
  const list = (items: unknown[]) => rng.pick([items, hostile.proxy(items), hostile.lure({ ...items })]);
  const sizes = () => list([1, 2, 3].map(() => tame(maybe(rng.int(1, 9)))));
  const call = (method: unknown, ...args: unknown[]) => (method as AnyCall).apply(device, args as never);
  rng.pick<() => void>([
    () =>
      world.try('tensor', () => {
        const dtype = maybe(rng.pick(['float32', 'float16', 'bfloat16']));
        const data = rng.pick([undefined, anyArray(hostile), hostile.anything()]);
        const tensor = call(device.tensor, rng.pick([sizes(), hostile.primitive()]), dtype, data);
        if (!(tensor instanceof DeviceTensor)) throw new Violation('tensor made no tensor');
        world.tensors.push(tensor);
      }),
    () =>
      world.try('write', () =>
        world.tensor().write(rng.pick([anyArray(hostile), hostile.anything()]) as never),
      ),
    () =>
      world.follow(
        'read',
        () => world.tensor().read(),
        () => {},
        () => {},
      ),
    () => world.try('close', () => world.tensor().close()),
    () =>
      world.try('hostBuffer', () => {
        const buffer = call(device.hostBuffer, tame(maybe(rng.int(1, 1000))));
        if (!(buffer instanceof ArrayBuffer)) throw new Violation('hostBuffer made no buffer');
        world.remember(buffer);
      }),
    () =>
      world.try('createBatch', () => {
        const streams = [0, 1].map(() => maybe(world.subject().stream));
        const batch = call(device.createBatch, rng.pick([list(streams), hostile.anything()]));
        if (!(batch instanceof Batch)) throw new Violation('createBatch made no batch');
        if (rng.uniform() < 0.5) batch.close();
      }),
    () =>
      world.follow(
        'attendBatch',
        () => call(device.attendBatch, rng.pick([list([hostile.anything()]), hostile.anything()]), maybe({})),
        () => {},
        () => {},
      ),
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
    if (!(stream instanceof MemoryStream)) throw new Violation('createStream made no stream');
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

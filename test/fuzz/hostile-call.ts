import { anyArray, place } from './arrays';
import { type AnyCall, METHODS, prepare, signalOf } from './valid-call';
import type { World } from './world';

/** A call with something wrong in it, or some trap: whether it succeeds is open, how it fails is not. */
export function hostileCall(world: World, subject = world.subject()): void {
  const { rng, hostile } = world;
  const { method, placed, input, outLength } = prepare(world, subject, rng.pick(METHODS));
  for (const { raw } of Object.values(placed)) world.remember(raw.buffer);
  let given: unknown = input;
  let options: unknown = {};
  let thenable = false;
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
      input[rng.pick(['q', 'k', 'v'])] = hostile.note(
        'tensor',
        rng.pick([world.tensor(), hostile.proxy(world.tensor())]),
      );
    },
    () => {
      option().out = hostile.note('tensor', world.tensor());
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
      const { array } = place(hostile, subject.stream.config.dtype, outLength, 'plain');
      thenable = true;
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
  const call = () => (subject.stream[method] as AnyCall).call(subject.stream, given, options);
  // Who knows what it attended to, when it succeeds. When it fails, it must not show.
  const succeeded = () => method.startsWith('attend') && subject.lose();
  if (method.endsWith('Sync')) {
    if (world.try(method, call)) succeeded();
    return;
  }
  const end = subject.begin();
  const resolved = () => {
    succeeded();
    end();
  };
  // A promise rejects after the fact when it is resolved with something whose `then` throws.
  world.follow(method, call, resolved, thenable ? resolved : end);
}

/** Signals that are none, or that are one with traps. */
function fakeSignal(world: World): unknown {
  const { rng, hostile } = world;
  const real = signalOf(world);
  const trap = (name: keyof AbortSignal | 'constructor') => {
    const value = real[name];
    return Object.defineProperty(real, name, { get: () => hostile.ambush(value), configurable: true });
  };
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

import type { Device } from '../../lib';
import { withHistory } from '../support/refusals';
import { type StreamState, stateOf } from '../support/state';
import { anyArray, place } from './arrays';
import { expectSame, Violation } from './subject';
import type { World } from './world';

type AnyCall = (input: unknown, options?: unknown) => unknown;

/** A stream with a history to which only calls are made that must fail: it must stay as it is, bit for bit. */
export class Victim {
  readonly #stream;
  readonly #before: StreamState;
  calls = 0;

  constructor(device: Device) {
    this.#stream = withHistory(
      device.createStream({
        heads: 4,
        kvHeads: 2,
        headDim: 12,
        valueDim: 20,
        segmentLength: 21,
        rope: { theta: 100 },
      }),
    );
    this.#before = stateOf(this.#stream);
  }

  check(): void {
    expectSame(stateOf(this.#stream), this.#before, 'the victim changed');
  }

  attack(world: World): void {
    const { rng, hostile } = world;
    const tokens = rng.int(1, 70);
    const tensor = (width: number) => place(hostile, 'float32', tokens * width);
    const placed = { q: tensor(48), k: tensor(24), v: tensor(40) };
    const input: Record<string, unknown> = { q: placed.q.array, k: placed.k.array, v: placed.v.array };
    const options: Record<string, unknown> = {};
    const name = rng.pick(['q', 'k', 'v'] as const);
    const isAsync = rng.uniform() < 0.5;
    // Each of these alone makes the call fail. Those that run code of ours may do anything else beside.
    const badSignal = () => (isAsync ? AbortSignal.abort(hostile.anything()) : new AbortController().signal);
    const noTensor = [hostile.primitive, hostile.convertible, () => [], () => anyArray(hostile)];
    const trap = { get: () => hostile.ambush(hostile.explode()) };
    const { raw } = placed[name];
    const spoils: Record<string, () => unknown> = {
      number: () => raw.fill(rng.pick([Number.NaN, Number.POSITIVE_INFINITY]), rng.int(0, raw.length - 1)),
      overflow: () => [placed.k.raw.fill(3e38), placed.q.raw.fill(3e38)],
      'no tensor': () => Object.assign(input, { [name]: rng.pick(noTensor)() }),
      length: () => Object.assign(input, { [name]: raw.subarray(1) }),
      missing: () => delete input[name],
      key: () => Object.assign(rng.pick([input, options]), { more: hostile.anything() }),
      'long out': () => Object.assign(options, { out: place(hostile, 'float32', tokens * 80 + 1).array }),
      'exotic out': () =>
        Object.assign(options, { out: place(hostile, 'float32', tokens * 80, 'exotic').array }),
      signal: () => Object.assign(options, { signal: badSignal() }),
      getter: () => Object.defineProperty(options, 'out', trap),
    };
    const how = rng.pick(Object.keys(spoils));
    spoils[how]();
    hostile.notes.push(`victim: ${how}`);
    const method = isAsync ? 'attend' : 'attendSync';
    const call = () => (this.#stream[method] as AnyCall).call(this.#stream, input, options);
    this.calls++;
    const succeeded = () => {
      throw new Violation(`a call with a bad ${how} succeeded`);
    };
    if (isAsync) world.follow(method, call, succeeded, () => {});
    else if (world.try(method, call)) succeeded();
  }
}

import vm from 'node:vm';
import type { Rng } from '../support/rng';

const NUMBERS = [
  0,
  -0,
  1,
  2,
  3,
  4,
  16,
  64,
  -1,
  0.5,
  1.5,
  255,
  256,
  257,
  1023,
  1025,
  65535,
  65536,
  65537,
  2147483647,
  2147483648,
  -2147483649,
  4294967295,
  4294967296,
  9007199254740991,
  9007199254740992,
  1e100,
  1.7976931348623157e308,
  5e-324,
  -5e-324,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
];
const STRINGS = [
  '',
  'cpu',
  'auto',
  'cuda',
  'cuda:0',
  'cuda:99',
  'cuda:-1',
  'cuda:1e3',
  'CPU',
  'linear',
  'delta',
  'gated',
  'local',
  'float32',
  'float16',
  'bfloat16',
  '1',
  'NaN',
  'cp\0u',
  '\ud800',
  '\u{1f600}'.repeat(40),
  'x'.repeat(70_000),
  'constructor',
  '__proto__',
  'hasOwnProperty',
];
const BIGINTS = [0n, 1n, -1n, 2n ** 64n, -(2n ** 200n)];

/** A realm of its own: its arrays and errors are not instanceof ours. */
const realm = vm.createContext({});

/**
 * Makes the values that a careful user never passes. Its getters, traps and conversions run `sabotage` or throw;
 * what they threw is remembered, for it is the one thing that may come back beside the package's own errors.
 */
export class Hostile {
  rng: Rng;
  /** What was made since the notes were last cleared, for the log. */
  notes: string[] = [];
  readonly #sabotage: () => void;
  readonly #thrownObjects = new WeakSet<object>();
  readonly #thrownPrimitives = new Set<unknown>();

  constructor(rng: Rng, sabotage: () => void) {
    this.rng = rng;
    this.#sabotage = sabotage;
  }

  threw(error: unknown): boolean {
    if (typeof error === 'object' && error !== null) return this.#thrownObjects.has(error);
    return this.#thrownPrimitives.has(error);
  }

  note<T>(text: string, value: T): T {
    this.notes.push(text);
    return value;
  }

  explode(): never {
    const error = this.rng.pick<() => unknown>([
      () => new Error('hostile'),
      () => new TypeError('hostile'),
      () => Object.freeze({ code: 'ERR_BUSY' }),
      () => Symbol.for('hostile'),
      () => undefined,
      () => null,
      () => 'hostile',
    ])();
    if (typeof error === 'object' && error !== null) this.#thrownObjects.add(error);
    else this.#thrownPrimitives.add(error);
    throw error;
  }

  /** What runs inside every getter, trap and conversion. */
  ambush<T>(value: T): T {
    const dice = this.rng.uniform();
    if (dice < 0.35) this.#sabotage();
    if (dice > 0.8) this.explode();
    return value;
  }

  number = (): number => {
    const value = this.rng.uniform() < 0.8 ? this.rng.pick(NUMBERS) : this.rng.normal() * 100;
    return this.note(Object.is(value, -0) ? '-0' : String(value), value);
  };

  string = (): string => {
    const value = this.rng.pick(STRINGS);
    return this.note(JSON.stringify(value.slice(0, 20)), value);
  };

  primitive = (): unknown =>
    this.rng.pick<() => unknown>([
      this.number,
      this.number,
      this.string,
      () => this.note('undefined', undefined),
      () => this.note('null', null),
      () => this.note('boolean', this.rng.uniform() < 0.5),
      () => this.note('bigint', this.rng.pick(BIGINTS)),
      () => this.note('symbol', this.rng.pick([Symbol.iterator, Symbol('s'), Symbol.for('hostile')])),
    ])();

  /** Objects whose conversion to a primitive is a trap. */
  convertible = (): unknown => {
    const trap = () => this.ambush(this.primitive());
    return this.note('convertible', {
      toString: trap,
      valueOf: trap,
      [Symbol.toPrimitive]: trap,
      toJSON: trap,
    });
  };

  /** A proxy whose every trap is an ambush, or one that is revoked. */
  proxy = (target: object): object => {
    if (this.rng.uniform() < 0.3) {
      const { proxy, revoke } = Proxy.revocable(target, {});
      revoke();
      return this.note('revoked proxy', proxy);
    }
    const spring =
      (trap: keyof typeof Reflect) =>
      (...args: unknown[]) => {
        this.ambush(undefined);
        return (Reflect[trap] as (...args: unknown[]) => unknown)(...args);
      };
    const handler: Record<string, unknown> = {};
    for (const trap of ['get', 'has', 'ownKeys', 'getOwnPropertyDescriptor', 'getPrototypeOf'] as const) {
      if (this.rng.uniform() < 0.5) handler[trap] = spring(trap);
    }
    return this.note(`proxy(${Object.keys(handler)})`, new Proxy(target, handler));
  };

  /** The same record, some of whose properties are now getters that ambush. */
  lure = (record: Record<string, unknown>): Record<string, unknown> => {
    const result: Record<string, unknown> = {};
    for (const [key, value] of Object.entries(record)) {
      const get = () => this.ambush(value);
      if (this.rng.uniform() < 0.5)
        Object.defineProperty(result, key, { get, enumerable: true, configurable: true });
      else result[key] = value;
    }
    return this.note('getters', result);
  };

  object = (): unknown =>
    this.rng.pick<() => unknown>([
      () => this.note('{}', {}),
      () => this.note('null prototype', Object.create(null)),
      () => this.note('[]', []),
      () => this.note('array', [this.primitive(), this.primitive()]),
      () => this.note('sparse array', new Array(this.rng.int(1, 1000))),
      () => this.note('array-like', { length: this.primitive(), 0: this.primitive() }),
      () => this.note('function', () => this.ambush(1)),
      () => this.note('class', class Any {}),
      () => this.note('date', new Date()),
      () => this.note('regexp', /x/),
      () => this.note('map', new Map()),
      () => this.note('error', new Error('an argument')),
      () => this.note('promise', Promise.resolve(1)),
      () => this.note('thenable', Object.defineProperty({}, 'then', { value: () => this.ambush(undefined) })),
      () => this.note('boxed', Object(this.rng.pick([1, 'cpu', true, 1n, Symbol.iterator]))),
      () => this.note('ArrayBuffer', new ArrayBuffer(16)),
      () => this.note('SharedArrayBuffer', new SharedArrayBuffer(16)),
      () => this.note('DataView', new DataView(new ArrayBuffer(16))),
      () => this.note('Buffer', Buffer.from('abcd')),
      () =>
        this.note(
          'foreign',
          vm.runInContext(this.rng.pick(['({})', '[]', 'new Float32Array(4)', 'new Error()']), realm),
        ),
      () =>
        this.proxy(
          this.rng.pick<() => object>([() => ({}), () => [], () => () => 1, () => new Float32Array(4)])(),
        ),
      () => this.lure({ q: 1, k: 2, v: 3, out: 4, signal: 5, threads: 1, heads: 1, headDim: 1 }),
      this.convertible,
    ])();

  anything = (): unknown => (this.rng.uniform() < 0.45 ? this.primitive() : this.object());
}

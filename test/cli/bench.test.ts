import type { Device, MemoryStream } from '../../lib';
import { compare } from '../../lib/cli/bench/compare';
import { type Case, type Contender, type Entry, Skipped } from '../../lib/cli/bench/contender';
import { bandwidthAt, floorOf, type Limits } from '../../lib/cli/bench/floor';
import { outputOf, relativeError } from '../../lib/cli/bench/reference';
import { type Result, runCase } from '../../lib/cli/bench/run';
import { decode, encode } from '../../lib/cli/bench/sixteen';
import { enterStream } from '../../lib/cli/bench/stream';
import { bytesPerDecodedToken, cut, flopsPerSegment, type Shape } from '../../lib/cli/bench/work';
import { BFLOAT16, decodeHalf, encodeHalf, FLOAT16 } from '../reference/half';

const shape: Shape = { heads: 8, kvHeads: 8, headDim: 64, segment: 512, dtype: 'float32', rule: 'delta' };

test('operations of a segment, counted by hand for two tokens', () => {
  // Local: 3 pairs, each 2 (multiply, add) x 2 (QK, PV) x 5 = 60. Retrieval: 2 tokens x 2 x 25 = 100, an update the
  // same, and delta reads once more.
  const small: Shape = { ...shape, heads: 1, kvHeads: 1, headDim: 5, segment: 2 };
  expect(flopsPerSegment({ ...small, rule: 'linear' })).toBe(60 + 100 + 100);
  expect(flopsPerSegment(small)).toBe(60 + 100 + 200);
  expect(flopsPerSegment({ ...small, heads: 6, kvHeads: 2 })).toBe(6 * 160 + 2 * 200);
});

test('a run is whole segments in calls below 64 MB', () => {
  for (const heads of [1, 8, 64]) {
    for (const segment of [1, 7, 512, 2048, 65536]) {
      const large = { ...shape, heads, kvHeads: heads, segment };
      const { tokens, calls } = cut(large);
      expect((tokens * calls) % segment).toBe(0);
      expect(tokens * 3 * heads * 64 * 4).toBeLessThan(64e6);
    }
  }
});

test.each([
  ['bfloat16', BFLOAT16],
  ['float16', FLOAT16],
] as const)('%s patterns round as the reference does', (dtype, format) => {
  const values = new Float32Array(20_000);
  for (let i = 0; i < values.length; i++) values[i] = (Math.random() - 0.5) * 2 ** ((i % 40) - 28);
  values.set([
    0,
    -0,
    1,
    -1,
    2 ** -14,
    2 ** -24,
    2 ** -25,
    1.5 * 2 ** -25,
    1 + 2 ** -8,
    1 + 3 * 2 ** -8,
    1 + 2 ** -11,
  ]);
  const expected = Uint16Array.from(values, (value) => encodeHalf(value, format));
  const encoded = encode(values, dtype);
  expect(Buffer.compare(Buffer.from(encoded.buffer), Buffer.from(expected.buffer))).toBe(0);
  const numbers = Float32Array.from(expected, (bits) => decodeHalf(bits, format));
  expect(Buffer.compare(Buffer.from(decode(encoded, dtype).buffer), Buffer.from(numbers.buffer))).toBe(0);
});

const one: Case = { ...shape, work: 'prefill', threads: 2 };
const limits: Limits = {
  threads: 2,
  flops: 1e11,
  reads: [
    { bytes: 1e6, bandwidth: 100e9 },
    { bytes: 4e6, bandwidth: 50e9 },
  ],
};

test('the floor is what the operations take, and of a decoded token what it reads', () => {
  // 8 heads of (2 x 512 x 513 x 64 + 6 x 512 x 64 x 64) operations a segment: 721,920 a token.
  expect(floorOf(one, limits)).toEqual({
    microsecondsPerToken: expect.closeTo(7.2192, 6),
    bound: 'arithmetic',
  });
  // 8 heads of 64 x 64 float32, 64 float64, and 256 keys and values of 64 float32.
  expect(bytesPerDecodedToken(one)).toBe(8 * (16384 + 512 + 131072));
  const decoding = floorOf({ ...one, work: 'decode' }, { ...limits, flops: 1e15 });
  expect(decoding.bound).toBe('bandwidth');
  expect(decoding.microsecondsPerToken).toBeCloseTo(1.1837e6 / bandwidthAt(limits, 1.1837e6) / 1e-6, 1);
});

test('between measured sizes the bandwidth is in proportion, outside it is the nearest', () => {
  expect(bandwidthAt(limits, 2e6)).toBeCloseTo(75e9, -3);
  expect([bandwidthAt(limits, 10), bandwidthAt(limits, 1e9)]).toEqual([100e9, 50e9]);
});

test('what a result is held against, by hand for two tokens', () => {
  const rows = { q: Float32Array.of(1, 2), k: Float32Array.of(0, Math.log(3)), v: Float32Array.of(4, 8) };
  const held = { ...rows, matrix: [6], normalizer: [2] };
  const tiny = { ...shape, headDim: 1 };
  expect(outputOf(held, tiny, 0)[0]).toBeCloseTo((4 + 3) / 2, 6); // one key; sigma cancels
  expect(outputOf(held, tiny, 1)[0]).toBeCloseTo(((4 + 9 * 8) / 10 + 3) / 2, 6); // e^0 and e^(2 log 3)
  expect(relativeError([3, 4.5], [3, 4])).toBeCloseTo(0.1, 9);
});

const result = (median: number, spread: number): Result => ({
  ...one,
  floor: null,
  skipped: [],
  contenders: [
    {
      name: 'infini-stream',
      runs: 3,
      microsecondsPerToken: { median, min: median - spread, max: median + spread },
      tokensPerSecond: 1e6 / median,
      gflops: 1,
      gbps: 1,
      ofFloor: null,
      firstIsFaster: null,
    },
  ],
});

test.each([
  [12, 0.1, 'slower'],
  [8, 0.1, 'faster'],
  [12, 3, 'the same'],
])('10 then and %d now, with a spread of %d, is %s', (now, spread, verdict) => {
  const [change] = compare([result(10, 0.1)], [result(now, spread)]);
  expect(change).toMatchObject({ ratio: now / 10, verdict, noise: expect.closeTo(0.01 + spread / now, 9) });
  expect(compare([{ ...result(10, 1), segment: 3 }], [result(now, spread)])).toEqual([]);
});

describe('contenders', () => {
  const never = new AbortController().signal;
  const log: string[] = [];
  const entry = (name: string, seconds: number): Entry => ({
    name,
    enter: async () => {
      const contender: Contender = {
        name,
        run: () => {
          log.push(name);
          return { seconds, tokens: 10 };
        },
        close: () => log.push(`${name} closed`),
      };
      return contender;
    },
  });
  beforeEach(() => log.splice(0));

  test('take turns round by round, and are closed', async () => {
    const { contenders } = await runCase(
      one,
      [entry('a', 1), entry('b', 3)],
      null,
      { rounds: 2, seconds: 0.5 },
      never,
    );
    expect(log).toEqual(['a', 'b', 'a', 'b', 'a closed', 'b closed']);
    expect(contenders.map(({ name }) => name)).toEqual(['a', 'b']);
    expect(contenders[1].microsecondsPerToken.median).toBeCloseTo(3e5, 3);
    expect(contenders[1].firstIsFaster?.median).toBeCloseTo(3, 9);
  });

  test('run again until their time is over', async () => {
    await runCase(one, [entry('a', 1)], null, { rounds: 1, seconds: 2.5 }, never);
    expect(log).toEqual(['a', 'a', 'a', 'a closed']);
  });

  test('that can not do a case are skipped; any other failure ends all', async () => {
    const refusing = (error: Error): Entry => ({ name: 'b', enter: () => Promise.reject(error) });
    const effort = { rounds: 1, seconds: 0.1 };
    const { skipped } = await runCase(one, [entry('a', 1), refusing(new Skipped('no'))], null, effort, never);
    expect(skipped).toEqual([{ name: 'b', why: 'no' }]);
    const wrong = runCase(one, [entry('a', 1), refusing(new Error('wrong'))], null, effort, never);
    await expect(wrong).rejects.toThrow('wrong');
    expect(log.at(-1)).toBe('a closed');
  });

  test('that are lost on the way are skipped, the others go on', async () => {
    const mortal: Entry = {
      name: 'b',
      enter: async () => {
        let lives = 1;
        const run = () => {
          if (lives-- === 0) throw new Skipped('it ended');
          return { seconds: 1, tokens: 10 };
        };
        return { name: 'b', run, close: () => log.push('b closed') };
      },
    };
    const effort = { rounds: 3, seconds: 0.1 };
    const { contenders, skipped } = await runCase(one, [entry('a', 1), mortal], null, effort, never);
    expect(contenders.map(({ name }) => name)).toEqual(['a']);
    expect(skipped).toEqual([{ name: 'b', why: 'it ended' }]);
    expect(log).toEqual(['a', 'a', 'b closed', 'a', 'a closed']);
  });

  const shifted = (by: number): Pick<Device, 'createStream'> => ({
    createStream: (config) => {
      const { openDevice } = require('../../lib') as typeof import('../../lib');
      const stream: MemoryStream = openDevice('cpu').createStream(config);
      return new Proxy(stream, {
        get(target, name) {
          const value = Reflect.get(target, name, target);
          if (typeof value !== 'function') return value;
          if (name !== 'attend') return value.bind(target);
          return async (...args: Parameters<MemoryStream['attend']>) => {
            const output = (await target.attend(...args)) as Float32Array;
            return output.map((x) => x * (1 + by));
          };
        },
      });
    },
  });
  const little: Case = { ...one, heads: 2, kvHeads: 1, headDim: 8, segment: 16, work: 'prefill' };

  test('a wrong result has no time', async () => {
    await expect(enterStream(shifted(1e-3) as Device, little, never)).rejects.toThrow(/from float64/);
    const right = await enterStream(shifted(0) as Device, little, never);
    expect(right.about?.error).toBeLessThan(1e-6);
    right.close();
  });
});

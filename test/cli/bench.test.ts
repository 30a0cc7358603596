import { compare } from '../../lib/cli/bench/compare';
import { type Case, type Contender, type Entry, Skipped } from '../../lib/cli/bench/contender';
import { bandwidthAt, floorOf, type Limits } from '../../lib/cli/bench/floor';
import { absorbed, outputOf, relativeError } from '../../lib/cli/bench/reference';
import { type Result, runCase } from '../../lib/cli/bench/run';
import { decode, encode } from '../../lib/cli/bench/sixteen';
import {
  bytesPerDecodedToken,
  bytesPerToken,
  cut,
  flopsPerSegment,
  flopsPerToken,
  nameOf,
  type Shape,
} from '../../lib/cli/bench/work';
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
  tileFlops: 0,
  triads: [],
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
  expect(decoding.microsecondsPerToken).toBeCloseTo(1.1837e6 / bandwidthAt(limits.reads, 1.1837e6) / 1e-6, 1);
});

test('bfloat16 is held against the tiles, where there are some', () => {
  const tiles = { ...limits, tileFlops: 1e12 };
  const of = (dtype: Case['dtype'], at: Limits) => floorOf({ ...one, dtype }, at).microsecondsPerToken;
  expect(of('bfloat16', tiles)).toBeCloseTo(0.72192, 6);
  expect([of('float32', tiles), of('float16', tiles), of('bfloat16', limits)]).toEqual(
    Array(3).fill(of('float32', limits)),
  );
});

test('a state pass reads a segment and the memory, which it writes again', () => {
  const state: Case = { ...one, work: 'state' };
  // 8 heads: 512 keys and values of 64 float32; 64 x 64 float32 and 64 float64, twice. Delta: 4 x 512 x 64 x 64 operations.
  expect(bytesPerToken(state)).toBe((8 * (512 * 2 * 64 * 4 + 2 * (16384 + 512))) / 512);
  expect(flopsPerToken(state)).toBe(8 * 4 * 64 * 64);
  expect(flopsPerToken({ ...state, rule: 'linear' })).toBe(8 * 2 * 64 * 64);
  expect(floorOf(state, limits)).toEqual({
    microsecondsPerToken: expect.closeTo(1e6 * ((8 * 4 * 64 * 64) / 1e11), 6),
    bound: 'arithmetic',
  });
  const { microsecondsPerToken } = floorOf(state, { ...limits, flops: 1e15 });
  const bytes = 512 * bytesPerToken(state);
  expect(microsecondsPerToken).toBeCloseTo((1e6 * bytes) / bandwidthAt(limits.reads, bytes) / 512, 9);
});

test('what many streams hold is read from further away', () => {
  const fast = { ...limits, flops: 1e15 };
  const step: Case = { ...one, work: 'step', streams: 1 };
  expect(floorOf(step, fast)).toEqual(floorOf({ ...one, work: 'decode' }, fast));
  const bytes = bytesPerDecodedToken(step);
  expect(floorOf({ ...step, streams: 64 }, fast).microsecondsPerToken).toBeCloseTo((1e6 * bytes) / 50e9, 9);
  expect(floorOf({ ...one, work: 'batch', streams: 64 }, fast)).toEqual(floorOf(one, fast));
  expect([nameOf(one), nameOf({ ...step, streams: 64 })]).toEqual(['prefill', 'step of 64']);
});

test('between measured sizes the bandwidth is in proportion, outside it is the nearest', () => {
  expect(bandwidthAt(limits.reads, 2e6)).toBeCloseTo(75e9, -3);
  expect([bandwidthAt(limits.reads, 10), bandwidthAt(limits.reads, 1e9)]).toEqual([100e9, 50e9]);
});

test('what a result is held against, by hand for two tokens', () => {
  const rows = { q: Float32Array.of(1, 2), k: Float32Array.of(0, Math.log(3)), v: Float32Array.of(4, 8) };
  const held = { ...rows, matrix: [6], normalizer: [2] };
  const tiny = { ...shape, headDim: 1 };
  expect(outputOf(held, tiny, 0)[0]).toBeCloseTo((4 + 3) / 2, 6); // one key; sigma cancels
  expect(outputOf(held, tiny, 1)[0]).toBeCloseTo(((4 + 9 * 8) / 10 + 3) / 2, 6); // e^0 and e^(2 log 3)
  expect(relativeError([3, 4.5], [3, 4])).toBeCloseTo(0.1, 9);
});

test('what a segment makes of a memory, by hand for two tokens', () => {
  const rows = { q: Float32Array.of(0, 0), k: Float32Array.of(0, 2), v: Float32Array.of(4, 8) };
  const held = { ...rows, matrix: [6], normalizer: [2] };
  const tiny = { ...shape, headDim: 1, segment: 2 };
  // sigma is 1 and 3; the memory says 3 for every key.
  expect(absorbed(held, { ...tiny, rule: 'linear' })).toEqual({
    matrix: Float64Array.of(6 + 4 + 3 * 8),
    normalizer: Float64Array.of(6),
  });
  expect(absorbed(held, tiny).matrix).toEqual(Float64Array.of(6 + 1 + 3 * 5));
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

  test('of which only a part is timed stop after what it really took', async () => {
    let runs = 0;
    const run = () => ({ seconds: 1e-6 * ++runs, tokens: 1, elapsed: 1 });
    const enter = async () => ({ name: 'a', run, close: () => {} });
    const effort = { rounds: 1, seconds: 2.5 };
    const { contenders } = await runCase(one, [{ name: 'a', enter }], null, effort, never);
    expect(runs).toBe(3);
    expect(contenders[0].microsecondsPerToken.median).toBeCloseTo(2, 9);
  });

  test('are announced', async () => {
    const note = (text: string) => log.push(text);
    await runCase(one, [entry('a', 1)], null, { rounds: 2, seconds: 0.1, note }, never);
    const said = ['a: making ready', 'a: round 1 of 2', 'a', 'a: round 2 of 2', 'a', '', 'a closed'];
    expect(log).toEqual(said);
  });

  test('are asked only for the work that they do', async () => {
    const only = { ...entry('b', 1), only: ['state', 'step'] as const };
    const effort = { rounds: 1, seconds: 0.1 };
    const alone = await runCase(one, [entry('a', 1), only], null, effort, never);
    expect(alone.contenders.map(({ name }) => name)).toEqual(['a']);
    const both = await runCase({ ...one, work: 'step' }, [entry('a', 1), only], null, effort, never);
    expect(both.contenders.map(({ name }) => name)).toEqual(['a', 'b']);
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
});

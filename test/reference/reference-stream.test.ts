import { sigma } from './formulas';
import { ReferenceStream } from './reference-stream';

const rows = (...numbers: number[]) => Float64Array.from(numbers);

function expectNumbers(actual: Float64Array, wanted: number[]): void {
  expect(actual.length).toBe(wanted.length);
  for (const [i, x] of wanted.entries()) expect(actual[i]).toBeCloseTo(x, 12);
}

describe('local attention', () => {
  test('of two tokens is the hand-computed softmax, and reports the largest logit', () => {
    const stream = new ReferenceStream({ heads: 1, headDim: 1, segmentLength: 4, emptyRead: 'local' });
    const { output, maxLogit } = stream.attend({ q: rows(1, 2), k: rows(1, -3), v: rows(10, 20) });
    // Token 1 meets the logits 2 and -6.
    const first = 1 / (1 + Math.exp(-8));
    expectNumbers(output, [10, 10 * first + 20 * (1 - first)]);
    expect(maxLogit).toEqual(rows(6));
  });

  test('uses 1 / sqrt(headDim), or the given scale', () => {
    const input = { q: rows(1, 1, 1, 1), k: rows(2, 0, 0, 4), v: rows(1, 0, 0, 1) };
    const attend = (scale?: number) =>
      new ReferenceStream({ heads: 1, headDim: 2, segmentLength: 4, emptyRead: 'local', scale }).attend(input)
        .output;
    const weight = 1 / (1 + Math.exp((4 - 2) / Math.SQRT2));
    expectNumbers(attend(), [1, 0, weight, 1 - weight]);
    expectNumbers(attend(3), [1, 0, 1 / (1 + Math.exp(6)), 1 / (1 + Math.exp(-6))]);
  });

  test('survives logits of thousands', () => {
    const stream = new ReferenceStream({ heads: 1, headDim: 1, segmentLength: 4, emptyRead: 'local' });
    expectNumbers(stream.attend({ q: rows(1, 1000), k: rows(1, 1), v: rows(3, 5) }).output, [3, 4]);
  });

  test('restarts in each segment: one token per segment attends to itself only', () => {
    const stream = new ReferenceStream({ heads: 1, headDim: 1, segmentLength: 1, gate: -800 });
    expectNumbers(stream.attend({ q: rows(1, 1, 1), k: rows(1, 1, 1), v: rows(1, 5, 9) }).output, [1, 5, 9]);
  });

  test('rotates by the position inside the segment', () => {
    const config = { heads: 1, headDim: 2, segmentLength: 2, scale: 1, gate: -800, rope: { theta: 10_000 } };
    const stream = new ReferenceStream(config);
    const { output } = stream.attend({
      q: rows(1, 0, 1, 0, 1, 0, 1, 0),
      k: rows(1, 0, 1, 0, 1, 0, 1, 0),
      v: rows(1, 0, 0, 1, 1, 0, 0, 1),
    });
    const far = Math.exp(Math.cos(1)) / (Math.exp(Math.cos(1)) + Math.exp(1));
    expectNumbers(output, [1, 0, far, 1 - far, 1, 0, far, 1 - far]);
  });
});

describe('memory', () => {
  test('a segment is absorbed with its last token, and only read by later segments', () => {
    const stream = new ReferenceStream({ heads: 1, headDim: 1, segmentLength: 2, gate: 800 });
    const token = { q: rows(0), k: rows(0), v: rows(6) };
    expectNumbers(stream.attend(token).output, [0]);
    expect([stream.tokens, stream.segments]).toEqual([1, 0]);
    expectNumbers(stream.memory().matrix, [0]);
    expectNumbers(stream.attend(token).output, [0]);
    expect([stream.tokens, stream.segments]).toEqual([2, 1]);
    expectNumbers(stream.memory().matrix, [12]);
    expectNumbers(stream.memory().normalizer, [2]);
    expectNumbers(stream.attend(token).output, [6]);
  });

  test('the state is sigma(K)^T V and the sum of sigma(K)', () => {
    const stream = new ReferenceStream({
      heads: 1,
      headDim: 2,
      valueDim: 1,
      segmentLength: 2,
      rule: 'linear',
    });
    stream.attend({ q: rows(0, 0, 0, 0), k: rows(1, -1, 0, 2), v: rows(10, 100) });
    expectNumbers(stream.memory().matrix, [2 * 10 + 1 * 100, Math.exp(-1) * 10 + 3 * 100]);
    expectNumbers(stream.memory().normalizer, [3, Math.exp(-1) + 3]);
    const [a, b] = [sigma(-2), sigma(5)];
    const want = (a * 120 + b * (10 / Math.E + 300)) / (a * 3 + b * (1 / Math.E + 3));
    expectNumbers(stream.retrieve({ q: rows(-2, 5) }), [want]);
  });

  test('one binding repeated reads back 1, 1/2, 1/2 ... by the delta rule and 1 by the linear rule', () => {
    const readBacks = (rule: 'linear' | 'delta') => {
      const stream = new ReferenceStream({ heads: 1, headDim: 2, valueDim: 1, segmentLength: 1, rule });
      return Array.from({ length: 5 }, () => {
        stream.attend({ q: rows(0, 0), k: rows(0.5, -0.5), v: rows(1) });
        return stream.retrieve({ q: rows(0.5, -0.5) })[0];
      });
    };
    expectNumbers(Float64Array.from(readBacks('delta')), [1, 0.5, 0.5, 0.5, 0.5]);
    expectNumbers(Float64Array.from(readBacks('linear')), [1, 1, 1, 1, 1]);
  });

  test('every token of a segment takes its delta from the memory before the segment', () => {
    const stream = new ReferenceStream({ heads: 1, headDim: 1, segmentLength: 2, rule: 'delta' });
    stream.attend({ q: rows(0, 0, 0, 0), k: rows(0, 0, 0, 0), v: rows(1, 3, 10, 20) });
    // M_1 = 4, z_1 = 2: both tokens of segment 2 read 2. M_2 = 4 + (10 - 2) + (20 - 2).
    expectNumbers(stream.memory().matrix, [30]);
    expectNumbers(stream.memory().normalizer, [4]);
  });

  test('the linear rule is linear attention over all earlier segments', () => {
    const k = [0.3, -0.9, 1.4, -2, 0.1, 0.6].map((x) => [x, -x / 2]);
    const v = [5, -1, 2, 8, -3, 4];
    const stream = new ReferenceStream({
      heads: 1,
      headDim: 2,
      valueDim: 1,
      segmentLength: 2,
      rule: 'linear',
    });
    stream.attend({ q: new Float64Array(12), k: Float64Array.from(k.flat()), v: Float64Array.from(v) });
    const q = [-0.4, 0.8];
    const weights = k.map((key) => sigma(q[0]) * sigma(key[0]) + sigma(q[1]) * sigma(key[1]));
    const total = weights.reduce((sum, w) => sum + w, 0);
    expectNumbers(stream.retrieve({ q: rows(...q) }), [
      weights.reduce((sum, w, i) => sum + w * v[i], 0) / total,
    ]);
  });

  test('is not rotated: RoPE leaves the state as it is', () => {
    const run = (rope: { theta: number } | null) => {
      const stream = new ReferenceStream({ heads: 1, headDim: 2, segmentLength: 2, rope });
      stream.attend({ q: rows(1, 2, 3, 4), k: rows(0.1, 0.2, 0.3, 0.4), v: rows(1, 2, 3, 4) });
      return stream.memory();
    };
    expect(run({ theta: 100 })).toEqual(run(null));
  });

  test('reads exactly 0 while empty and where no product sigma(q)_i z_i survives', () => {
    const stream = new ReferenceStream({ heads: 1, headDim: 2, segmentLength: 1, rule: 'delta' });
    expect(stream.retrieve({ q: rows(1, 1) })).toEqual(rows(0, 0));
    stream.attend({ q: rows(0, 0), k: rows(-100, 1), v: rows(7, 9) });
    expect(stream.retrieve({ q: rows(5, -100) })).toEqual(rows(0, 0));
    expectNumbers(stream.retrieve({ q: rows(5, -80) }), [7, 9]);
  });

  test('keys and queries at -80 still bind and retrieve', () => {
    const stream = new ReferenceStream({
      heads: 1,
      headDim: 2,
      valueDim: 1,
      segmentLength: 1,
      rule: 'linear',
    });
    stream.attend({ q: rows(0, 0), k: rows(-80, -80), v: rows(42) });
    expectNumbers(stream.retrieve({ q: rows(-80, -60) }), [42]);
  });
});

describe('mixing', () => {
  const first = { q: rows(0), k: rows(0), v: rows(8) };

  test('while nothing is absorbed the output is (1 - g) A_dot, or A_dot on request', () => {
    const gate = Math.log(3); // g = 0.75
    const output = (emptyRead?: 'gated' | 'local') =>
      new ReferenceStream({ heads: 1, headDim: 1, segmentLength: 4, gate, emptyRead }).attend(first).output;
    expectNumbers(output(), [2]);
    expectNumbers(output('gated'), [2]);
    expectNumbers(output('local'), [8]);
  });

  test('afterwards it is g A_mem + (1 - g) A_dot with one gate per query head', () => {
    const gate = [Math.log(3), -Math.log(3)];
    const stream = new ReferenceStream({ heads: 2, kvHeads: 1, headDim: 1, segmentLength: 1, gate });
    const two = { q: rows(0, 0), k: rows(0), v: rows(8) };
    stream.attend(two);
    expectNumbers(stream.attend({ ...two, v: rows(16) }).output, [
      0.75 * 8 + 0.25 * 16,
      0.25 * 8 + 0.75 * 16,
    ]);
  });

  test('query heads share kv heads in groups of neighbours', () => {
    const stream = new ReferenceStream({
      heads: 4,
      kvHeads: 2,
      headDim: 1,
      segmentLength: 2,
      emptyRead: 'local',
    });
    const { output } = stream.attend({ q: rows(0, 0, 0, 0), k: rows(0, 0), v: rows(1, 2) });
    expectNumbers(output, [1, 1, 2, 2]);
    stream.attend({ q: rows(0, 0, 0, 0), k: rows(0, 0), v: rows(3, 4) });
    expectNumbers(stream.retrieve({ q: rows(0, 0, 0, 0) }), [2, 2, 3, 3]);
  });
});

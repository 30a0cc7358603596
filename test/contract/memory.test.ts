import type { Device } from '../../lib';
import { openTestDevice } from '../support/device';
import { dataOf, makeInput } from '../support/inputs';
import { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { stateOf } from '../support/state';
import { bytesOf, DTYPES } from '../support/tensors';

/** memory(), fork() and reset(). */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const config = { heads: 4, kvHeads: 2, headDim: 6, valueDim: 5, segmentLength: 8 };

describe('memory()', () => {
  test('of an empty stream is zero in the shapes of M and z', () => {
    const stream = device.createStream(config);
    const { matrix, normalizer } = stream.memory();
    expect(matrix).toEqual(new Float32Array(2 * 6 * 5));
    expect(normalizer).toEqual(new Float64Array(2 * 6));
    expect(matrix).toBeInstanceOf(Float32Array);
    expect(normalizer).toBeInstanceOf(Float64Array);
    stream.close();
  });

  seededTest('gives copies: writing to them changes nothing', (rng) => {
    const stream = device.createStream(config);
    stream.attendSync(dataOf(makeInput(stream.config, 30, rng)));
    const state = stateOf(stream);
    const { matrix, normalizer } = stream.memory();
    expect(matrix.every((x) => x !== 0) && normalizer.every((x) => x > 0)).toBe(true);
    matrix.fill(Number.NaN);
    normalizer.fill(Number.NaN);
    expect(stateOf(stream)).toEqual(state);
    stream.close();
  });

  seededTest('changes when a segment closes, and only then', (rng) => {
    const stream = device.createStream(config);
    let last = bytesOf(stream.memory().matrix);
    for (let token = 1; token <= 40; token++) {
      stream.attendSync(dataOf(makeInput(stream.config, 1, rng)));
      const now = bytesOf(stream.memory().matrix);
      expect(now.equals(last)).toBe(token % 8 !== 0);
      expect(stream.segments).toBe(Math.floor(token / 8));
      last = now;
    }
    stream.close();
  });

  test('places head, key component and value component where the contract says', () => {
    const stream = device.createStream({
      heads: 2,
      headDim: 2,
      valueDim: 3,
      segmentLength: 1,
      rule: 'linear',
    });
    const q = new Float32Array(4);
    // Key components 0 of head 0 and 1 of head 1 are alive.
    const k = Float32Array.of(1, -100, -100, 3);
    stream.attendSync({ q, k, v: Float32Array.of(1, 2, 3, 10, 20, 30) });
    const { matrix, normalizer } = stream.memory();
    expect([...matrix]).toEqual([2, 4, 6, 0, 0, 0, 0, 0, 0, 40, 80, 120]);
    expect([...normalizer]).toEqual([2, 0, 0, 4]);
    stream.close();
  });
});

describe('retrieve', () => {
  seededTest('reads the absorbed segments alone and changes nothing', async (rng) => {
    const stream = device.createStream(config);
    const { q } = makeInput(stream.config, 3, rng);
    const read = () => bytesOf(stream.retrieveSync({ q: q.data }));
    stream.attendSync(dataOf(makeInput(stream.config, 7, rng)));
    expect(read().every((byte) => byte === 0)).toBe(true);
    stream.attendSync(dataOf(makeInput(stream.config, 1, rng)));
    const first = read();
    expect(first.every((byte) => byte === 0)).toBe(false);
    stream.attendSync(dataOf(makeInput(stream.config, 7, rng)));
    expect(read().equals(first)).toBe(true);
    const state = stateOf(stream);
    expect(bytesOf(await stream.retrieve({ q: q.data })).equals(first)).toBe(true);
    expect(stateOf(stream)).toEqual(state);
    stream.attendSync(dataOf(makeInput(stream.config, 1, rng)));
    expect(read().equals(first)).toBe(false);
    stream.close();
  });

  test('gives zeros for any number of queries while nothing is absorbed', async () => {
    for (const dtype of DTYPES) {
      const stream = device.createStream({ ...config, dtype });
      for (const tokens of [1, 3, 1000]) {
        const { q } = makeInput(stream.config, tokens, new Rng(1));
        const sync = stream.retrieveSync({ q: q.data });
        const async = await stream.retrieve({ q: q.data });
        expect(sync.length).toBe(tokens * 4 * 5);
        expect(bytesOf(sync).every((byte) => byte === 0) && bytesOf(async).every((byte) => byte === 0)).toBe(
          true,
        );
      }
      stream.close();
    }
  });
});

describe('fork()', () => {
  seededTest('makes a stream that continues in the same way, and of its own', (rng) => {
    for (const dtype of DTYPES) {
      const stream = device.createStream({ ...config, dtype, rope: { theta: 100 }, gate: [1, -1, 0, 2] });
      stream.attendSync(dataOf(makeInput(stream.config, 21, rng)));
      const fork = stream.fork();
      const state = stateOf(stream);
      expect(fork).not.toBe(stream);
      expect(fork.config).toEqual(stream.config);
      expect(stateOf(fork)).toEqual(state);

      const next = dataOf(makeInput(stream.config, 12, rng));
      const output = fork.attendSync(next);
      expect([fork.tokens, fork.segments, stream.tokens, stream.segments]).toEqual([33, 4, 21, 2]);
      expect(stateOf(stream)).toEqual(state);
      expect(bytesOf(stream.attendSync(next)).equals(bytesOf(output))).toBe(true);
      expect(stateOf(stream)).toEqual(stateOf(fork));

      const after = stateOf(fork);
      stream.reset();
      stream.close();
      expect(fork.closed).toBe(false);
      expect(stateOf(fork)).toEqual(after);
      fork.close();
    }
  });

  test('of an empty stream is an empty stream', () => {
    const stream = device.createStream(config);
    const fork = stream.fork();
    expect(stateOf(fork)).toEqual(stateOf(stream));
    fork.close();
    expect(stream.closed).toBe(false);
    stream.close();
  });
});

describe('reset()', () => {
  seededTest('makes the stream as good as new, at any point of a segment', (rng) => {
    for (const tokens of [1, 7, 8, 9, 20]) {
      const stream = device.createStream({ ...config, emptyRead: 'local' });
      const fresh = stateOf(stream);
      stream.attendSync(dataOf(makeInput(stream.config, tokens, rng)));
      stream.reset();
      expect([stream.tokens, stream.segments]).toEqual([0, 0]);
      expect(stateOf(stream)).toEqual(fresh);
      stream.reset();
      expect(stateOf(stream)).toEqual(fresh);
      stream.close();
    }
  });
});

import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { loadModel, Model, openDevice, Session } from '../../lib';
import { DEVICE_ID, onCuda } from '../support/device';
import { Rng } from '../support/rng';
import { sizes } from '../support/sizes';
import { writeTinyModel } from '../support/tiny-model';

const folder = mkdtempSync(path.join(os.tmpdir(), 'infini-session-'));
const directory = path.join(folder, 'model');
let model: Model;

beforeAll(async () => {
  await writeTinyModel(directory, { segmentLength: 8, vocabulary: 24, seed: 3 });
  model = await loadModel(directory, { device: DEVICE_ID });
});
afterAll(() => {
  model.close();
  rmSync(folder, { recursive: true, force: true });
});

const draw = (count: number, seed = 1): Int32Array => {
  const rng = new Rng(seed);
  return Int32Array.from({ length: count }, () => rng.int(0, 23));
};
/** Bit for bit on the CPU; on CUDA how tokens come in changes the last digits. */
function expectSame(actual: Float32Array, wanted: Float32Array): void {
  if (DEVICE_ID === 'cpu') expect(actual).toEqual(wanted);
  const scale = Math.max(...wanted.map(Math.abs));
  expect(Math.max(...actual.map((logit, i) => Math.abs(logit - wanted[i])))).toBeLessThan(1e-5 * scale);
}
const code = (name: string) => expect.objectContaining({ code: name });
const caught = async (work: () => unknown): Promise<unknown> => {
  try {
    await work();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
};

describe('feed', () => {
  test('counts tokens, whatever they come in', async () => {
    using session = model.createSession();
    await session.feed([1, 2, 3]);
    await session.feed(Uint32Array.of(4, 5));
    await session.feed(
      (async function* () {
        yield [6];
        yield Int32Array.of(7, 8);
        yield [];
      })(),
    );
    expect(session.tokens).toBe(8);
    using other = model.createSession();
    await other.feed([1, 2, 3, 4, 5, 6, 7, 8]);
    expectSame(other.logits(), session.logits());
  });

  test('nothing is nothing', async () => {
    using session = model.createSession();
    await session.feed([]);
    expect(session.tokens).toBe(0);
    await session.feed([3]);
    const before = session.logits();
    await session.feed(new Int32Array(0));
    expect(session.logits()).toEqual(before);
  });

  test.each<[string, unknown, string]>([
    ['a token beyond the vocabulary', [1, 24], 'ERR_OUT_OF_RANGE'],
    ['a negative token', [-1], 'ERR_OUT_OF_RANGE'],
    ['half a token', [0.5], 'ERR_OUT_OF_RANGE'],
    ['NaN', [Number.NaN], 'ERR_OUT_OF_RANGE'],
    ['a hole', Array(2), 'ERR_INVALID_ARG_TYPE'],
    ['a string in the list', [1, '2'], 'ERR_INVALID_ARG_TYPE'],
    ['a bigint', [1n], 'ERR_INVALID_ARG_TYPE'],
    ['floats', Float32Array.of(1), 'ERR_INVALID_ARG_TYPE'],
    ['nothing at all', undefined, 'ERR_INVALID_ARG_TYPE'],
    ['null', null, 'ERR_INVALID_ARG_TYPE'],
    ['a text, without a tokenizer', 'hello', 'ERR_INVALID_ARG_TYPE'],
  ])('refuses %s and leaves the session as it was', async (_, input, wanted) => {
    using session = model.createSession();
    await session.feed(draw(13));
    const before = session.logits();
    const error = await caught(() => session.feed(input as number[]));
    expect(error).toEqual(code(wanted));
    expect(session.tokens).toBe(13);
    expect(session.logits()).toEqual(before);
    using same = model.createSession();
    await same.feed([...draw(13), 5]);
    await session.feed([5]);
    expectSame(session.logits(), same.logits());
  });

  test('what fails late undoes everything before', async () => {
    using session = model.createSession();
    await session.feed(draw(21));
    const before = session.logits();
    async function* broken() {
      yield draw(sizes.modelFeed, 7);
      throw new Error('the source broke');
    }
    expect(await caught(() => session.feed(broken()))).toEqual(new Error('the source broke'));
    async function* bad() {
      yield draw(sizes.modelFeed, 8);
      yield [99];
    }
    expect(await caught(() => session.feed(bad()))).toEqual(code('ERR_OUT_OF_RANGE'));
    let called = 0;
    const stop = () => {
      if (++called === 2) throw new Error('enough');
    };
    expect(await caught(() => session.feed(draw(sizes.modelFeed, 9), { onProgress: stop }))).toEqual(
      new Error('enough'),
    );
    expect(called).toBe(2);
    expect(session.tokens).toBe(21);
    expect(session.logits()).toEqual(before);
    using same = model.createSession();
    await same.feed([...draw(21), 5]);
    await session.feed([5]);
    expectSame(session.logits(), same.logits());
  });

  test('an abort undoes everything before', async () => {
    using session = model.createSession();
    await session.feed(draw(21));
    const before = session.logits();
    const controller = new AbortController();
    const error = await caught(() =>
      session.feed(draw(sizes.modelLongFeed, 3), {
        signal: controller.signal,
        onProgress: ({ tokens }) => tokens > 1500 && controller.abort('stop'),
      }),
    );
    expect(error).toEqual(code('ABORT_ERR'));
    expect((error as Error).cause).toBe('stop');
    expect(session.tokens).toBe(21);
    expect(session.logits()).toEqual(before);
    expect(await caught(() => session.feed([1], { signal: AbortSignal.abort() }))).toEqual(code('ABORT_ERR'));
  });

  test('an abort and a close are heard while the source has nothing to give', async () => {
    async function* silent() {
      yield [1, 2];
      await new Promise(() => {});
    }
    const controller = new AbortController();
    using session = model.createSession();
    const aborted = caught(() => session.feed(silent(), { signal: controller.signal }));
    const after = session.feed([3]);
    setTimeout(() => controller.abort(), 20);
    expect(await aborted).toEqual(code('ABORT_ERR'));
    await after;
    expect(session.tokens).toBe(1);
    const closed = caught(() => session.feed(silent()));
    setTimeout(() => session.close(), 20);
    expect(await closed).toEqual(code('ERR_CLOSED'));
  });

  test('and whenever they come: before the start, in the same tick, in the queue, by the model or the device', async () => {
    const stalled = { [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }) };
    using first = model.createSession();
    expect(await caught(() => first.feed(stalled, { signal: AbortSignal.abort() }))).toEqual(
      code('ABORT_ERR'),
    );
    const controller = new AbortController();
    const blocking = caught(() => first.feed(stalled));
    const queued = [
      caught(() => first.feed([1], { signal: controller.signal })),
      caught(() => model.feedAll([{ session: first, input: [1] }], { signal: controller.signal })),
      caught(() => first.generate({ maxTokens: 1, signal: controller.signal })),
    ];
    controller.abort();
    expect(await Promise.all(queued)).toEqual(Array(3).fill(code('ABORT_ERR')));
    first.close();
    expect(await blocking).toEqual(code('ERR_CLOSED'));

    for (const closing of ['model', 'device'] as const) {
      const device = openDevice(DEVICE_ID);
      const guest = await loadModel(directory, { device });
      const session = guest.createSession();
      const waiting = caught(() => session.feed(stalled));
      const next = caught(() => session.feed([1]));
      await new Promise(setImmediate);
      (closing === 'model' ? guest : device).close();
      expect(await waiting).toEqual(code('ERR_CLOSED'));
      expect(await next).toEqual(code('ERR_CLOSED'));
      expect(session.closed).toBe(true);
      device.close();
    }
  });

  test('a source that fails is not asked again, and its own error is told', async () => {
    using session = model.createSession();
    const source = (result: () => unknown, after: () => unknown) =>
      ({ [Symbol.asyncIterator]: () => ({ next: async () => result(), return: after }) }) as AsyncIterable<
        number[]
      >;
    const broken = () => {
      throw new Error('mine');
    };
    const other = () => {
      throw new Error('not mine');
    };
    expect(await caught(() => session.feed(source(broken, other)))).toEqual(new Error('mine'));
    expect(await caught(() => session.feed(source(broken, () => new Promise(() => {}))))).toEqual(
      new Error('mine'),
    );
    expect(await caught(() => session.feed(source(() => null, other)))).toEqual(code('ERR_INVALID_ARG_TYPE'));
    expect(
      await caught(() =>
        session.feed(
          source(
            () => ({ value: undefined }),
            () => {},
          ),
        ),
      ),
    ).toEqual(code('ERR_INVALID_ARG_TYPE'));
    const proxy = (length: number) =>
      new Proxy([], { get: (_, key) => (key === 'length' ? length : undefined) });
    for (const length of [-1, 1e20, 0.5])
      expect(await caught(() => session.feed(proxy(length)))).toEqual(code('ERR_OUT_OF_RANGE'));
    const { proxy: revoked, revoke } = Proxy.revocable([], {});
    revoke();
    expect(await caught(() => session.feed(revoked))).toEqual(code('ERR_INVALID_ARG_TYPE'));
    expect(await caught(() => session.feed(Object.create(Int32Array.prototype)))).toEqual(
      code('ERR_INVALID_ARG_TYPE'),
    );
    expect(session.tokens).toBe(0);
  });

  test('tells its progress', async () => {
    using session = model.createSession();
    const seen: number[] = [];
    await session.feed(draw(sizes.modelFeed), {
      onProgress: ({ tokens, total }) => {
        expect(total).toBe(sizes.modelFeed);
        seen.push(tokens);
      },
    });
    expect(seen.length).toBeGreaterThan(2);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(seen.at(-1)).toBe(sizes.modelFeed);
  });

  test('calls take effect in call order', async () => {
    using session = model.createSession();
    const tokens = draw(1300);
    await Promise.all([session.feed(tokens.subarray(0, 1200)), session.feed(tokens.subarray(1200))]);
    using same = model.createSession();
    await same.feed(tokens);
    expectSame(session.logits(), same.logits());
  });

  test('refuses options that are none', async () => {
    using session = model.createSession();
    for (const options of [null, 1, { signal: {} }, { onProgress: 1 }, { onprogress: () => {} }]) {
      expect(await caught(() => session.feed([1], options as object))).toEqual(code('ERR_INVALID_ARG_TYPE'));
    }
    expect(session.tokens).toBe(0);
  });
});

describe('generate', () => {
  test('is what the logits say, greedily, and continues the session', async () => {
    using session = model.createSession();
    await session.feed(draw(9));
    using twin = session.fork();
    const { tokens, text, finish } = await session.generate({ maxTokens: 12 });
    expect([tokens.length, text, finish]).toEqual([12, '', 'length']);
    expect(session.tokens).toBe(21);
    for (const token of tokens) {
      const logits = twin.logits();
      expect(token).toBe(logits.indexOf(Math.max(...logits)));
      await twin.feed([token]);
    }
    expectSame(twin.logits(), session.logits());
  });

  test('the same seed draws the same tokens, another one others', async () => {
    using session = model.createSession();
    await session.feed(draw(9));
    const drawn = await Promise.all(
      [1, 1, 2].map(async (seed) => {
        using fork = session.fork();
        return (await fork.generate({ maxTokens: 60, temperature: 2, seed })).tokens;
      }),
    );
    expect(drawn[1]).toEqual(drawn[0]);
    expect(drawn[2]).not.toEqual(drawn[0]);
  });

  test('topK 1 is greedy at any temperature', async () => {
    using session = model.createSession();
    await session.feed(draw(9));
    using fork = session.fork();
    const { tokens } = await fork.generate({ maxTokens: 20, temperature: 5, topK: 1 });
    expect(tokens).toEqual((await session.generate({ maxTokens: 20 })).tokens);
  });

  test('stops before a stop token, which the session has not taken', async () => {
    using session = model.createSession();
    await session.feed(draw(9));
    using fork = session.fork();
    const { tokens } = await fork.generate({ maxTokens: 20 });
    const stop = tokens[7] as number;
    const at = tokens.indexOf(stop);
    const result = await session.generate({ maxTokens: 20, stop: [stop] });
    expect(result.finish).toBe('stop');
    expect(result.tokens).toEqual(tokens.subarray(0, at));
    expect(session.tokens).toBe(9 + at);
  });

  test('can be iterated over, and left', async () => {
    using session = model.createSession();
    await session.feed(draw(9));
    using fork = session.fork();
    const { tokens } = await fork.generate({ maxTokens: 5 });
    const seen: number[] = [];
    for await (const { token } of session.generate({ maxTokens: 100 })) {
      seen.push(token);
      if (seen.length === 5) break;
    }
    expect(seen).toEqual([...tokens]);
    expect(session.tokens).toBe(14);
    expectSame(session.logits(), fork.logits());
  });

  test('what failed or was left says so when it is awaited later', async () => {
    using session = model.createSession();
    await session.feed([1]);
    const controller = new AbortController();
    const aborted = session.generate({ maxTokens: 5, signal: controller.signal });
    const iterate = async () => {
      for await (const _ of aborted) controller.abort();
    };
    expect(await caught(iterate)).toEqual(code('ABORT_ERR'));
    expect(await caught(() => aborted)).toEqual(code('ABORT_ERR'));
    const left = session.generate({ maxTokens: 5 });
    for await (const _ of left) break;
    expect(await left).toMatchObject({ finish: 'left', tokens: { length: 1 } });
  });

  test('a stop text is never shown, nor what may become one', async () => {
    using trained = await loadModel(path.join(__dirname, '../../models/passkey-linear'), {
      device: DEVICE_ID,
    });
    using session = trained.createSession();
    await session.feed(
      'The pass key is 90218. Remember it. 90218 is the pass key. What is the pass key? The pass key is ',
    );
    using twin = session.fork();
    using third = session.fork();
    const { text } = await twin.generate({ maxTokens: 5 });
    expect(text).toBe('90218');
    const stop = ['8', '218', '02x'];
    let shown = '';
    for await (const { text: piece } of session.generate({ maxTokens: 5, stop })) shown += piece;
    const result = await third.generate({ maxTokens: 5, stop });
    expect([shown, result.text, result.finish]).toEqual(['90', '90', 'stop']);
  });

  test('generates nothing when nothing is asked for', async () => {
    using session = model.createSession();
    await session.feed([1]);
    const { tokens, finish } = await session.generate({ maxTokens: 0 });
    expect([tokens.length, finish, session.tokens]).toEqual([0, 'length', 1]);
  });

  test('needs tokens', async () => {
    using session = model.createSession();
    expect(await caught(() => session.generate({ maxTokens: 1 }))).toEqual(code('ERR_OUT_OF_RANGE'));
    expect(await caught(() => model.generateAll([session], { maxTokens: 1 }))).toEqual(
      code('ERR_OUT_OF_RANGE'),
    );
    expect(() => session.logits()).toThrow(code('ERR_OUT_OF_RANGE'));
  });

  test.each<[unknown, string]>([
    [undefined, 'ERR_INVALID_ARG_TYPE'],
    [{}, 'ERR_INVALID_ARG_TYPE'],
    [{ maxTokens: -1 }, 'ERR_OUT_OF_RANGE'],
    [{ maxTokens: 1.5 }, 'ERR_OUT_OF_RANGE'],
    [{ maxTokens: '1' }, 'ERR_INVALID_ARG_TYPE'],
    [{ maxTokens: 1, temperature: -1 }, 'ERR_OUT_OF_RANGE'],
    [{ maxTokens: 1, temperature: Number.NaN }, 'ERR_OUT_OF_RANGE'],
    [{ maxTokens: 1, topK: 0 }, 'ERR_OUT_OF_RANGE'],
    [{ maxTokens: 1, seed: 2 ** 32 }, 'ERR_OUT_OF_RANGE'],
    [{ maxTokens: 1, stop: 24 }, 'ERR_OUT_OF_RANGE'],
    [{ maxTokens: 1, stop: 'x' }, 'ERR_INVALID_ARG_TYPE'],
    [{ maxTokens: 1, stop: {} }, 'ERR_INVALID_ARG_TYPE'],
    [{ maxTokens: 1, what: 1 }, 'ERR_INVALID_ARG_TYPE'],
  ])('refuses %p', async (options, wanted) => {
    using session = model.createSession();
    await session.feed([1]);
    expect(await caught(() => session.generate(options as { maxTokens: number }))).toEqual(code(wanted));
    expect(session.tokens).toBe(1);
  });

  test('an abort keeps the tokens generated until then', async () => {
    using session = model.createSession();
    await session.feed([1]);
    const controller = new AbortController();
    const run = async () => {
      for await (const _ of session.generate({ maxTokens: 1000, signal: controller.signal })) {
        if (session.tokens === 6) controller.abort();
      }
    };
    expect(await caught(run)).toEqual(code('ABORT_ERR'));
    expect(session.tokens).toBe(6);
  });
});

describe('sessions', () => {
  test('forks go their own ways', async () => {
    using session = model.createSession();
    await session.feed(draw(30));
    using fork = session.fork();
    expectSame(fork.logits(), session.logits());
    expect(fork.tokens).toBe(30);
    await fork.feed(draw(40, 2));
    using same = model.createSession();
    await same.feed([...draw(30), ...draw(40, 2)]);
    expectSame(fork.logits(), same.logits());
    expect(session.tokens).toBe(30);
  });

  test('a reset session is a new one', async () => {
    using session = model.createSession();
    await session.feed(draw(30));
    session.reset();
    expect(session.tokens).toBe(0);
    expect(() => session.logits()).toThrow(code('ERR_OUT_OF_RANGE'));
    await session.feed(draw(11, 5));
    using fresh = model.createSession();
    await fresh.feed(draw(11, 5));
    expectSame(session.logits(), fresh.logits());
  });

  test('hold constant memory', async () => {
    using device = openDevice(DEVICE_ID);
    using own = await loadModel(directory, { device });
    using session = own.createSession();
    const bytes = session.byteLength;
    expect(bytes).toBeGreaterThan(0);
    await session.feed(draw(100));
    const before = device.stats();
    await session.feed(draw(sizes.modelFeed));
    const after = device.stats();
    expect(session.byteLength).toBe(bytes);
    expect(after.streamBytes).toBe(before.streamBytes);
    expect(after.streams).toBe(before.streams);
    expect(after.weightBytes).toBe(before.weightBytes);
    expect(before.weightBytes).toBeGreaterThanOrEqual(own.byteLength);
  });

  test('refuse what may not be done while a call is pending', async () => {
    using session = model.createSession();
    const pending = session.feed(draw(sizes.modelFeed));
    for (const call of [() => session.fork(), () => session.reset(), () => session.logits()]) {
      expect(call).toThrow(code('ERR_BUSY'));
    }
    await pending;
    session.fork().close();
  });

  test('are closed for good, and their pending calls with them', async () => {
    const session = model.createSession();
    const pending = caught(() => session.feed(draw(sizes.modelLongFeed)));
    session.close();
    session.close();
    expect(await pending).toEqual(code('ERR_CLOSED'));
    expect(session.closed).toBe(true);
    expect(await caught(() => session.feed([1]))).toEqual(code('ERR_CLOSED'));
    expect(() => session.generate({ maxTokens: 1 })).toThrow(code('ERR_CLOSED'));
    expect(() => session.fork()).toThrow(code('ERR_CLOSED'));
    expect(() => session.reset()).toThrow(code('ERR_CLOSED'));
  });

  test('cannot be made or used by anyone else', () => {
    // @ts-expect-error: private
    expect(() => new Session()).toThrow(code('ERR_INVALID_ARG_TYPE'));
    // @ts-expect-error: private
    expect(() => new Model()).toThrow(code('ERR_INVALID_ARG_TYPE'));
    expect(() => Session.prototype.logits.call({} as Session)).toThrow(code('ERR_INVALID_ARG_TYPE'));
    expect(() => Model.prototype.createSession.call({} as Model)).toThrow(code('ERR_INVALID_ARG_TYPE'));
  });
});

describe('together', () => {
  test('all or nothing, also for those that were finished', async () => {
    const sessions = [model.createSession(), model.createSession()] as const;
    for (const session of sessions) await session.feed(draw(10));
    const before = sessions.map((session) => session.logits());
    async function* bad() {
      yield draw(sizes.modelFeed);
      yield [24];
    }
    const entries = [
      { session: sessions[0], input: [1, 2, 3] },
      { session: sessions[1], input: bad() },
    ];
    expect(await caught(() => model.feedAll(entries))).toEqual(code('ERR_OUT_OF_RANGE'));
    for (const [i, session] of sessions.entries()) {
      expect(session.tokens).toBe(10);
      expect(session.logits()).toEqual(before[i]);
      session.close();
    }
  });

  test('refuses a session twice, or of another model, or closed', async () => {
    using session = model.createSession();
    using other = await loadModel(directory, { device: DEVICE_ID });
    using theirs = other.createSession();
    const closed = model.createSession();
    closed.close();
    const feed = (...list: unknown[]) =>
      caught(() => model.feedAll(list.map((one) => ({ session: one as Session, input: [1] }))));
    expect(await feed(session, session)).toEqual(code('ERR_BUSY'));
    expect(await feed(session, theirs)).toEqual(code('ERR_INVALID_ARG_TYPE'));
    expect(await feed(session, {})).toEqual(code('ERR_INVALID_ARG_TYPE'));
    expect(await feed(session, closed)).toEqual(code('ERR_CLOSED'));
    expect(await feed()).toEqual(code('ERR_OUT_OF_RANGE'));
    expect(await caught(() => model.generateAll([session, session], { maxTokens: 1 }))).toEqual(
      code('ERR_BUSY'),
    );
    expect(session.tokens).toBe(0);
  });

  test('those that stop early leave the others going', async () => {
    const sessions = Array.from({ length: 4 }, () => model.createSession());
    await model.feedAll(sessions.map((session, i) => ({ session, input: draw(10 + i, i) })));
    const alone = await Promise.all(
      sessions.map(async (session) => {
        using fork = session.fork();
        return (await fork.generate({ maxTokens: 25, stop: 3 })).tokens;
      }),
    );
    const results = await model.generateAll(sessions, { maxTokens: 25, stop: 3 });
    if (DEVICE_ID === 'cpu') expect(results.map(({ tokens }) => tokens)).toEqual(alone);
    for (const [i, session] of sessions.entries()) {
      expect(session.tokens).toBe(10 + i + (results[i]?.tokens.length ?? -1));
      session.close();
    }
  });
});

(onCuda ? test : test.skip)('on a GPU all sessions share each round', async () => {
  using device = openDevice(DEVICE_ID);
  using own = await loadModel(directory, { device });
  const rounds = [];
  for (const count of [1, 2, 5]) {
    const sessions = Array.from({ length: count }, () => own.createSession());
    const before = device.stats().units;
    await own.feedAll(sessions.map((session) => ({ session, input: draw(5) })));
    rounds.push(device.stats().units - before);
    for (const session of sessions) session.close();
  }
  expect(new Set(rounds).size).toBe(1);
});

test('a closed model closes its sessions; a device of yours stays open', async () => {
  const own = await loadModel(directory, { device: DEVICE_ID });
  const session = own.createSession();
  own.close();
  own.close();
  expect([own.closed, session.closed]).toEqual([true, true]);
  expect(() => own.createSession()).toThrow(code('ERR_CLOSED'));

  using device = openDevice(DEVICE_ID);
  const guest = await loadModel(directory, { device });
  guest.close();
  device.createStream({ heads: 1, headDim: 2 }).close();
  device.close();
  expect(await caught(() => loadModel(directory, { device }))).toEqual(code('ERR_CLOSED'));
});

test.each<[unknown, unknown, string]>([
  [1, undefined, 'ERR_INVALID_ARG_TYPE'],
  ['a\0b', undefined, 'ERR_INVALID_ARG_TYPE'],
  ['.', { device: 'tpu' }, 'ERR_OUT_OF_RANGE'],
  ['.', { device: 7 }, 'ERR_INVALID_ARG_TYPE'],
  ['.', { threads: 0, device: 'cpu' }, 'ERR_OUT_OF_RANGE'],
  ['.', { what: 1 }, 'ERR_INVALID_ARG_TYPE'],
  ['/nowhere/at/all', { device: 'cpu' }, 'ERR_MODEL'],
])('loadModel(%p, %p) is %s', async (place, options, wanted) => {
  expect(await caught(() => loadModel(place as string, options as object))).toEqual(code(wanted));
});

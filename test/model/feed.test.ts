import { loadModel, openDevice, type Session } from '../../lib';
import { DEVICE_ID } from '../support/device';
import { sizes } from '../support/sizes';
import { caught, code, draw, expectSame, useTinyModel } from './sessions';

const tiny = useTinyModel();

/** The session is as it was after these tokens: in what it says, and in what it will say. */
async function expectAsFed(tokens: Int32Array, session: Session, logits: Float32Array): Promise<void> {
  expect(session.tokens).toBe(tokens.length);
  expect(session.logits()).toEqual(logits);
  using same = tiny.model.createSession();
  await same.feed([...tokens, 5]);
  await session.feed([5]);
  expectSame(session.logits(), same.logits());
}

describe('feed', () => {
  test('counts tokens, whatever they come in', async () => {
    using session = tiny.model.createSession();
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
    using other = tiny.model.createSession();
    await other.feed([1, 2, 3, 4, 5, 6, 7, 8]);
    expectSame(other.logits(), session.logits());
  });

  test('nothing is nothing', async () => {
    using session = tiny.model.createSession();
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
    using session = tiny.model.createSession();
    await session.feed(draw(13));
    const before = session.logits();
    const error = await caught(() => session.feed(input as number[]));
    expect(error).toEqual(code(wanted));
    await expectAsFed(draw(13), session, before);
  });

  test('what fails late undoes everything before', async () => {
    using session = tiny.model.createSession();
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
    await expectAsFed(draw(21), session, before);
  });

  test('an abort undoes everything before', async () => {
    using session = tiny.model.createSession();
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
    using session = tiny.model.createSession();
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
    using first = tiny.model.createSession();
    expect(await caught(() => first.feed(stalled, { signal: AbortSignal.abort() }))).toEqual(
      code('ABORT_ERR'),
    );
    const controller = new AbortController();
    const blocking = caught(() => first.feed(stalled));
    const queued = [
      caught(() => first.feed([1], { signal: controller.signal })),
      caught(() => tiny.model.feedAll([{ session: first, input: [1] }], { signal: controller.signal })),
      caught(() => first.generate({ maxTokens: 1, signal: controller.signal })),
    ];
    controller.abort();
    expect(await Promise.all(queued)).toEqual(Array(3).fill(code('ABORT_ERR')));
    first.close();
    expect(await blocking).toEqual(code('ERR_CLOSED'));

    for (const closing of ['model', 'device'] as const) {
      const device = openDevice(DEVICE_ID);
      const guest = await loadModel(tiny.directory, { device });
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
    using session = tiny.model.createSession();
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
    using session = tiny.model.createSession();
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
    using session = tiny.model.createSession();
    const tokens = draw(1300);
    await Promise.all([session.feed(tokens.subarray(0, 1200)), session.feed(tokens.subarray(1200))]);
    using same = tiny.model.createSession();
    await same.feed(tokens);
    expectSame(session.logits(), same.logits());
  });

  test('refuses options that are none', async () => {
    using session = tiny.model.createSession();
    for (const options of [null, 1, { signal: {} }, { onProgress: 1 }, { onprogress: () => {} }]) {
      expect(await caught(() => session.feed([1], options as object))).toEqual(code('ERR_INVALID_ARG_TYPE'));
    }
    expect(session.tokens).toBe(0);
  });
});

import { loadModel, Model, openDevice, Session } from '../../lib';
import { DEVICE_ID, onCuda } from '../support/device';
import { sizes } from '../support/sizes';
import { caught, code, draw, expectSame, useTinyModel } from './sessions';

const tiny = useTinyModel();

describe('sessions', () => {
  test('forks go their own ways', async () => {
    using session = tiny.model.createSession();
    await session.feed(draw(30));
    using fork = session.fork();
    expectSame(fork.logits(), session.logits());
    expect(fork.tokens).toBe(30);
    await fork.feed(draw(40, 2));
    using same = tiny.model.createSession();
    await same.feed([...draw(30), ...draw(40, 2)]);
    expectSame(fork.logits(), same.logits());
    expect(session.tokens).toBe(30);
  });

  test('a reset session is a new one', async () => {
    using session = tiny.model.createSession();
    await session.feed(draw(30));
    session.reset();
    expect(session.tokens).toBe(0);
    expect(() => session.logits()).toThrow(code('ERR_OUT_OF_RANGE'));
    await session.feed(draw(11, 5));
    using fresh = tiny.model.createSession();
    await fresh.feed(draw(11, 5));
    expectSame(session.logits(), fresh.logits());
  });

  test('hold constant memory', async () => {
    using device = openDevice(DEVICE_ID);
    using own = await loadModel(tiny.directory, { device });
    using session = own.createSession();
    const bytes = session.byteLength;
    expect(bytes).toBeGreaterThan(0);
    await session.feed(draw(100));
    const before = device.stats();
    await session.feed(draw(sizes.modelFeed));
    const after = device.stats();
    expect(session.byteLength).toBe(bytes);
    // Less: garbage of other tests.
    expect(after.streamBytes).toBeLessThanOrEqual(before.streamBytes);
    expect(after.streams).toBeLessThanOrEqual(before.streams);
    expect(after.weightBytes).toBeLessThanOrEqual(before.weightBytes);
    expect(after.weightBytes).toBeGreaterThanOrEqual(own.byteLength);
  });

  test('refuse what may not be done while a call is pending', async () => {
    using session = tiny.model.createSession();
    const pending = session.feed(draw(sizes.modelFeed));
    for (const call of [() => session.fork(), () => session.reset(), () => session.logits()]) {
      expect(call).toThrow(code('ERR_BUSY'));
    }
    await pending;
    session.fork().close();
  });

  test('are closed for good, and their pending calls with them', async () => {
    const session = tiny.model.createSession();
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
    const sessions = [tiny.model.createSession(), tiny.model.createSession()] as const;
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
    expect(await caught(() => tiny.model.feedAll(entries))).toEqual(code('ERR_OUT_OF_RANGE'));
    for (const [i, session] of sessions.entries()) {
      expect(session.tokens).toBe(10);
      expect(session.logits()).toEqual(before[i]);
      session.close();
    }
  });

  test('refuses a session twice, or of another model, or closed', async () => {
    using session = tiny.model.createSession();
    using other = await loadModel(tiny.directory, { device: DEVICE_ID });
    using theirs = other.createSession();
    const closed = tiny.model.createSession();
    closed.close();
    const feed = (...list: unknown[]) =>
      caught(() => tiny.model.feedAll(list.map((one) => ({ session: one as Session, input: [1] }))));
    expect(await feed(session, session)).toEqual(code('ERR_BUSY'));
    expect(await feed(session, theirs)).toEqual(code('ERR_INVALID_ARG_TYPE'));
    expect(await feed(session, {})).toEqual(code('ERR_INVALID_ARG_TYPE'));
    expect(await feed(session, closed)).toEqual(code('ERR_CLOSED'));
    expect(await feed()).toEqual(code('ERR_OUT_OF_RANGE'));
    expect(await caught(() => tiny.model.generateAll([session, session], { maxTokens: 1 }))).toEqual(
      code('ERR_BUSY'),
    );
    expect(session.tokens).toBe(0);
  });

  test('those that stop early leave the others going', async () => {
    const sessions = Array.from({ length: 4 }, () => tiny.model.createSession());
    await tiny.model.feedAll(sessions.map((session, i) => ({ session, input: draw(10 + i, i) })));
    const alone = await Promise.all(
      sessions.map(async (session) => {
        using fork = session.fork();
        return (await fork.generate({ maxTokens: 25, stop: 3 })).tokens;
      }),
    );
    const results = await tiny.model.generateAll(sessions, { maxTokens: 25, stop: 3 });
    if (DEVICE_ID === 'cpu') expect(results.map(({ tokens }) => tokens)).toEqual(alone);
    for (const [i, session] of sessions.entries()) {
      expect(session.tokens).toBe(10 + i + (results[i]?.tokens.length ?? -1));
      session.close();
    }
  });
});

(onCuda ? test : test.skip)('on a GPU all sessions share each round', async () => {
  using device = openDevice(DEVICE_ID);
  using own = await loadModel(tiny.directory, { device });
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
  const own = await loadModel(tiny.directory, { device: DEVICE_ID });
  const session = own.createSession();
  own.close();
  own.close();
  expect([own.closed, session.closed]).toEqual([true, true]);
  expect(() => own.createSession()).toThrow(code('ERR_CLOSED'));

  using device = openDevice(DEVICE_ID);
  const guest = await loadModel(tiny.directory, { device });
  guest.close();
  device.createStream({ heads: 1, headDim: 2 }).close();
  device.close();
  expect(await caught(() => loadModel(tiny.directory, { device }))).toEqual(code('ERR_CLOSED'));
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

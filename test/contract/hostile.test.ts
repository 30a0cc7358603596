import { type Device, type MemoryStream, openDevice, type StreamConfig } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject, expectThrow } from '../support/failures';
import { withHistory } from '../support/refusals';
import { stateOf } from '../support/state';

/** Objects whose getters do mischief: whatever they do happens before or after a call, never inside it. */
let device: Device;
let stream: MemoryStream;
beforeAll(() => {
  device = openTestDevice();
});
beforeEach(() => {
  stream = withHistory(device.createStream({ heads: 1, headDim: 2, segmentLength: 4 }));
});
afterEach(() => stream.close());
afterAll(() => device.close());

const good = () => Float32Array.of(1, 2, 3, 4);
const input = () => ({ q: good(), k: good(), v: good() });
const detach = (array: Float32Array) => structuredClone(array, { transfer: [array.buffer as ArrayBuffer] });

/** The object with one key replaced by a getter. */
function withGetter<T extends object>(object: T, key: string, get: () => unknown): T {
  return Object.defineProperty(object, key, { get, enumerable: true, configurable: true });
}

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => 'nothing',
    (error) => error,
  );
}

test('what a getter throws is what the caller gets, and nothing has changed', async () => {
  const state = stateOf(stream);
  const thrown = new Error('mine');
  const bomb = () => {
    throw thrown;
  };
  for (const key of ['q', 'k', 'v']) {
    expect(() => stream.attendSync(withGetter(input(), key, bomb))).toThrow(thrown);
    expect(await rejection(stream.attend(withGetter(input(), key, bomb)))).toBe(thrown);
  }
  expect(() => stream.attendSync(input(), withGetter({}, 'out', bomb))).toThrow(thrown);
  expect(await rejection(stream.attend(input(), withGetter({}, 'signal', bomb)))).toBe(thrown);
  for (const key of ['heads', 'gate', 'rope', 'dtype']) {
    const config = withGetter({ heads: 1, headDim: 2 }, key, bomb);
    expect(() => device.createStream(config)).toThrow(thrown);
  }
  const gate = withGetter({ length: 2, 0: 0 }, '1', bomb) as unknown as ArrayLike<number>;
  expect(() => device.createStream({ heads: 2, headDim: 2, gate })).toThrow(thrown);
  expect(() => openDevice('cpu', withGetter({}, 'threads', bomb))).toThrow(thrown);
  expect(stateOf(stream)).toEqual(state);
});

test('a configuration is read once: what was checked is what is used', () => {
  const config: Record<string, unknown> = {};
  const values = {
    heads: 2,
    kvHeads: 1,
    headDim: 4,
    valueDim: 3,
    segmentLength: 5,
    rule: 'linear',
    gate: [1, 2],
    scale: 0.5,
    rope: { theta: 10 },
    emptyRead: 'local',
    dtype: 'float16',
  };
  for (const [key, value] of Object.entries(values)) {
    let reads = 0;
    withGetter(config, key, () => (reads++ === 0 ? value : 1e9));
  }
  const made = device.createStream(config as unknown as StreamConfig);
  expect(made.config).toEqual(values);
  made.close();
});

test('a getter that closes the stream makes the call fail as closed', async () => {
  const closer = () => {
    stream.close();
    return good();
  };
  expectThrow(() => stream.attendSync(withGetter(input(), 'v', closer)), { code: 'ERR_CLOSED' });
  const other = withHistory(device.createStream({ heads: 1, headDim: 2, segmentLength: 4 }));
  const closesOther = () => {
    other.close();
    return good();
  };
  await expectReject(() => other.attend(withGetter(input(), 'v', closesOther)), { code: 'ERR_CLOSED' });
});

test('a getter that closes the device makes createStream fail as closed', () => {
  const mine = openTestDevice();
  const config = withGetter({ heads: 1, headDim: 2 }, 'scale', () => {
    mine.close();
    return 1;
  });
  expectThrow(() => mine.createStream(config), { code: 'ERR_CLOSED' });
});

test('a getter that detaches a tensor read before it leaves that tensor empty', async () => {
  for (const [name, key] of [
    ['q', 'k'],
    ['q', 'v'],
    ['k', 'v'],
  ] as const) {
    const make = () => {
      const mine = input();
      const victim = mine[name];
      return withGetter(mine, key, () => {
        if (victim.length > 0) detach(victim);
        return good();
      });
    };
    const state = stateOf(stream);
    expectThrow(() => stream.attendSync(make()), { code: 'ERR_SHAPE', says: [`input.${name}`] });
    await expectReject(() => stream.attend(make()), { code: 'ERR_SHAPE', says: [`input.${name}`] });
    expect(stateOf(stream)).toEqual(state);
  }
});

test('a getter that detaches out makes the call fail and the stream stay', () => {
  const state = stateOf(stream);
  const out = good();
  const options = withGetter({ out }, 'out', () => {
    detach(out);
    return out;
  });
  expectThrow(() => stream.attendSync(input(), options), { code: 'ERR_SHAPE', says: ['options.out'] });
  expect(stateOf(stream)).toEqual(state);
});

test('a getter that calls the stream is a call before this one', async () => {
  const twin = stream.fork();
  const inner = () => {
    stream.attendSync({ q: good(), k: good(), v: good() });
    return good();
  };
  stream.attendSync(withGetter(input(), 'k', inner));
  twin.attendSync(input());
  twin.attendSync(input());
  expect(stateOf(stream)).toEqual(stateOf(twin));

  const queued: Promise<unknown>[] = [];
  const innerAsync = () => {
    queued.push(stream.attend({ q: good(), k: good(), v: good() }));
    return good();
  };
  await stream.attend(withGetter(input(), 'k', innerAsync));
  await Promise.all(queued);
  expect(queued.length).toBe(1);
  twin.attendSync(input());
  twin.attendSync(input());
  expect(stateOf(stream)).toEqual(stateOf(twin));
  twin.close();
});

test('a getter that makes the stream busy makes the synchronous call fail as busy', async () => {
  const tokens = stream.tokens;
  const queued: Promise<unknown>[] = [];
  const inner = () => {
    queued.push(stream.attend(input()));
    return good();
  };
  expectThrow(() => stream.attendSync(withGetter(input(), 'q', inner)), { code: 'ERR_BUSY' });
  await Promise.all(queued);
  expect(stream.tokens).toBe(tokens + 2);
});

test('objects without a prototype and frozen ones are fine', () => {
  const bare = Object.assign(Object.create(null), input());
  expect(stream.attendSync(bare).length).toBe(4);
  expect(stream.attendSync(Object.freeze(input()), Object.freeze({})).length).toBe(4);
  const config = Object.assign(Object.create(null), { heads: 1, headDim: 2 });
  device.createStream(config).close();
});

test('an error about a hostile object names it without running its code', () => {
  let ran = 0;
  const trap = () => {
    ran++;
    return 'mischief';
  };
  const hostile = {
    toString: trap,
    valueOf: trap,
    toJSON: trap,
    get [Symbol.toStringTag]() {
      return trap();
    },
    [Symbol.toPrimitive]: trap,
  };
  expectThrow(() => stream.attendSync({ ...input(), q: hostile } as never), { code: 'ERR_INVALID_ARG_TYPE' });
  expectThrow(() => device.createStream({ heads: hostile, headDim: 1 } as never), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
  expectThrow(() => openDevice(hostile as never), { code: 'ERR_INVALID_ARG_TYPE' });
  const tagged = Object.defineProperty(new Float64Array(4), Symbol.toStringTag, { get: trap });
  expectThrow(() => stream.attendSync({ ...input(), q: tagged } as never), { code: 'ERR_DTYPE' });
  expect(ran).toBe(0);
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  for (const value of [proxy, Object.assign(() => 0, { toString: trap })]) {
    expectThrow(() => stream.attendSync({ ...input(), q: value } as never), { code: 'ERR_INVALID_ARG_TYPE' });
    expectThrow(() => device.createStream({ heads: value, headDim: 1 } as never), {
      code: 'ERR_INVALID_ARG_TYPE',
    });
  }
  expect(ran).toBe(0);
});

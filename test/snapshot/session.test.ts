import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type Device, loadModel, type Model, type Session } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject, type Failure } from '../support/failures';
import { Rng } from '../support/rng';
import { bytesOf } from '../support/tensors';
import { type TinyModelOptions, writeTinyModel } from '../support/tiny-model';
import { sealed, takeApart } from './files';
import { accidents } from './spoil';

let folder: string;
let device: Device;
let model: Model;

async function load(options: TinyModelOptions = {}): Promise<Model> {
  const directory = mkdtempSync(path.join(folder, 'model-'));
  await writeTinyModel(directory, options);
  return loadModel(directory, { device });
}

beforeAll(async () => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-'));
  device = openTestDevice();
  model = await load();
});
afterAll(() => {
  device.close();
  rmSync(folder, { recursive: true });
});

const tokens = (length: number, seed = 1) => {
  const rng = new Rng(seed);
  return Int32Array.from({ length }, () => rng.int(0, 23));
};

async function fed(length: number): Promise<Session> {
  const session = model.createSession();
  if (length > 0) await session.feed(tokens(length));
  return session;
}

const refused = (...says: (string | RegExp)[]): Failure => ({
  code: 'ERR_SNAPSHOT',
  says: [/^Expected /, ...says],
});

test.each([1, 7, 8, 29])(
  'a session of %d tokens goes on bit for bit: logits, feeds and generation',
  async (length) => {
    using session = await fed(length);
    const bytes = Buffer.from(await session.snapshot());
    using restored = await model.restoreSession(bytes);
    expect([restored.tokens, restored.byteLength]).toEqual([length, session.byteLength]);
    expect(restored.logits()).toEqual(session.logits());
    expect(bytes.equals(await restored.snapshot())).toBe(true);
    const drawn = { maxTokens: 12, temperature: 1, seed: 5 };
    const [a, b] = [await session.generate(drawn), await restored.generate(drawn)];
    expect(b).toEqual(a);
    expect(a.tokens.length).toBe(12);
    await Promise.all([session.feed(tokens(11, 2)), restored.feed(tokens(11, 2))]);
    expect(bytesOf(restored.logits()).equals(bytesOf(session.logits()))).toBe(true);
    expect(Buffer.from(await session.snapshot()).equals(await restored.snapshot())).toBe(true);
  },
);

test('a session without tokens has no logits, then or later', async () => {
  using session = await fed(0);
  const bytes = await session.snapshot();
  expect(Object.keys(takeApart(bytes).tensors)).not.toContain('logits');
  using restored = await model.restoreSession(bytes);
  expect(() => restored.logits()).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
  await restored.feed(tokens(5));
  using other = await fed(5);
  expect(restored.logits()).toEqual(other.logits());
});

test('the file holds each layer, the logits and what the model is', async () => {
  using session = await fed(13);
  const { metadata, tensors, dataOf } = takeApart(await session.snapshot());
  const layer = (i: number) => ({
    [`layers.${i}.normalizer`]: expect.objectContaining({ dtype: 'F64', shape: [2, 4] }),
    [`layers.${i}.matrix`]: expect.objectContaining({ dtype: 'F32', shape: [2, 4, 4] }),
    [`layers.${i}.keys`]: expect.objectContaining({ dtype: 'F32', shape: [5, 2, 4] }),
    [`layers.${i}.values`]: expect.objectContaining({ dtype: 'F32', shape: [5, 2, 4] }),
  });
  const logits = expect.objectContaining({ dtype: 'F32', shape: [24] });
  expect(tensors).toEqual({ ...layer(0), ...layer(1), logits });
  expect(dataOf('logits').equals(bytesOf(session.logits()))).toBe(true);
  expect(metadata).toMatchObject({ kind: 'session', tokens: '13', gates: JSON.stringify(model.gates) });
  expect(JSON.parse(metadata.model)).toEqual(model.config);
});

test('snapshots take effect in call order, also between the tokens that are generated', async () => {
  using session = model.createSession();
  const pending = [
    session.feed(tokens(9)),
    session.snapshot(),
    session.feed(tokens(4, 3)),
    session.snapshot(),
  ];
  expect(() => session.fork()).toThrow(expect.objectContaining({ code: 'ERR_BUSY' }));
  const [, first, , second] = (await Promise.all(pending)) as Uint8Array[];
  expect([first, second].map((bytes) => takeApart(bytes).metadata.tokens)).toEqual(['9', '13']);
  using early = await model.restoreSession(first);
  await early.feed(tokens(4, 3));
  expect(early.logits()).toEqual(session.logits());

  const seen: number[] = [];
  let middle: Uint8Array | undefined;
  for await (const { token } of session.generate({ maxTokens: 8 })) {
    if (seen.push(token) === 3) middle = await session.snapshot();
  }
  using later = await model.restoreSession(middle as Uint8Array);
  expect([...(await later.generate({ maxTokens: 5 })).tokens]).toEqual(seen.slice(3));
});

test('a session of another copy of the model goes on in this one', async () => {
  using copy = await load();
  using session = copy.createSession();
  await session.feed(tokens(20));
  using restored = await model.restoreSession(await session.snapshot());
  expect(restored.logits()).toEqual(session.logits());
});

test.each([
  [{ vocabulary: 25 }, '24, as in this model, for "vocabulary" of its model but received 25'],
  [{ layers: 3 }, '2, as in this model, for "layers"'],
  [{ segmentLength: 16 }, '"segmentLength"'],
  [{ rule: 'linear' }, "'delta', as in this model, for \"rule\" of its model but received 'linear'"],
  [{ normEpsilon: 1e-5 }, '"normEpsilon" of its model but received 0.00001'],
  [{ tied: true }, '"tied"'],
  [{ seed: 2 }, "this model's gates", 'another model'],
] as [TinyModelOptions, ...string[]][])(
  'a session of a model with %j is refused',
  async (options, ...says) => {
    using other = await load(options);
    using session = other.createSession();
    await session.feed(tokens(9));
    const { streams } = device.stats();
    const bytes = await session.snapshot();
    await expectReject(() => model.restoreSession(bytes), refused(...says));
    expect(device.stats().streams).toBeLessThanOrEqual(streams);
  },
);

test('streams and sessions are told apart', async () => {
  using session = await fed(3);
  using stream = device.createStream({ heads: 1, headDim: 2 });
  const [ofSession, ofStream] = [await session.snapshot(), await stream.snapshot()];
  await expectReject(
    () => device.restore(ofSession),
    refused("'stream'", "'session'", 'model.restoreSession'),
  );
  await expectReject(
    () => model.restoreSession(ofStream),
    refused("'session'", "'stream'", 'device.restore'),
  );
});

test('what a right checksum covers is checked, layer by layer, and nothing is left of what was made', async () => {
  using session = await fed(21);
  const { header, data, tensors } = takeApart(await session.snapshot());
  const { streams } = device.stats();
  const spoilt = async (name: string, float: number, ...says: string[]) => {
    const bytes = Buffer.from(data);
    bytes.writeFloatLE(float, tensors[name].data_offsets[0] + 4);
    await expectReject(() => model.restoreSession(sealed(header, bytes)), refused(...says));
  };
  await spoilt('layers.1.matrix', Number.NaN, 'finite numbers in matrix');
  await spoilt('layers.0.keys', Number.POSITIVE_INFINITY, 'finite numbers in keys');
  await spoilt('logits', Number.NaN, 'finite numbers for tensor "logits"', 'index 1');
  const edit = (from: string | RegExp, to: string) => {
    expect(header.replace(from, to)).not.toBe(header);
    return () => model.restoreSession(sealed(header.replace(from, to), data));
  };
  await expectReject(edit('"tokens":"21"', '"tokens":"22"'), refused('shape of tensor "layers.0.keys"'));
  await expectReject(edit('"layers.1.values"', '"layers.9.values"'), refused('"layers.1.values"', 'none'));
  await expectReject(edit('\\"width\\":12', '\\"width\\":12.0'), refused('the one text'));
  await expectReject(edit('"model":"{', '"model":"['), refused('a JSON object'));
  expect(device.stats().streams).toBeLessThanOrEqual(streams);
});

test('no accident to a session goes unnoticed', async () => {
  const rng = new Rng(11);
  using session = await fed(21);
  const bytes = await session.snapshot();
  const { streams } = device.stats();
  for (const [name, spoil] of Object.entries(accidents)) {
    for (let i = 0; i < 40; i++) {
      const spoiled = spoil(bytes, rng) as Buffer;
      if (spoiled.equals(bytes)) continue;
      const { code, message } = await model.restoreSession(spoiled).then(
        () => ({ code: 'restored', message: name }),
        (error) => error,
      );
      expect([code, message]).toEqual(['ERR_SNAPSHOT', expect.stringMatching(/^Expected ./s)]);
    }
  }
  expect(device.stats().streams).toBeLessThanOrEqual(streams);
});

test('other receivers are refused', async () => {
  using session = model.createSession();
  const TYPE = { code: 'ERR_INVALID_ARG_TYPE' };
  for (const one of [undefined, {}, device, new Proxy(session, {})])
    await expectReject(() => session.snapshot.call(one), TYPE);
  for (const one of [undefined, {}, session, new Proxy(model, {})])
    await expectReject(() => model.restoreSession.call(one as never, new Uint8Array(8)), TYPE);
});

test('a closed session gives none, a closed model takes none, also in the middle of it', async () => {
  const other = await load();
  const session = other.createSession();
  await session.feed(tokens(10));
  const bytes = await session.snapshot();
  const pending = session.snapshot();
  session.close();
  const closed = (what: string) => ({ code: 'ERR_CLOSED', says: [`open ${what}`] });
  await expectReject(() => pending, closed('session'));
  await expectReject(() => session.snapshot(), closed('session'));
  const { streams } = device.stats();
  const restoring = other.restoreSession(bytes);
  other.close();
  await expectReject(() => restoring, closed('model'));
  await expectReject(() => other.restoreSession(bytes), closed('model'));
  expect(device.stats().streams).toBeLessThanOrEqual(streams);
  await expectReject(() => model.restoreSession('x' as unknown as Uint8Array), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
});

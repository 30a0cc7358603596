// What killing a process cannot show, for the system keeps what it wrote: that the disk comes before the answer.
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { Sessions } from '../../examples/server/sessions';
import { filesOf, type LiveStream, type Said } from '../../examples/server/stream';
import { loadModel, type Model } from '../../lib';
import { MODEL } from './service';

const limits = { streams: 10, streamsPerUser: 10, waiting: 2, logTokens: 1000 };

let model: Model;
let data: string;
let sessions: Sessions;
let stream: LiveStream;
/** The methods that all file handles share. */
let disk: Awaited<ReturnType<typeof open>>;

beforeAll(async () => {
  model = await loadModel(MODEL, { device: 'cpu' });
});
afterAll(() => model.close());
beforeEach(async () => {
  data = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-sessions-'));
  sessions = await Sessions.open(model, data, limits);
  stream = await sessions.create('anna');
  const handle = await open(data);
  disk = Object.getPrototypeOf(handle);
  await handle.close();
});
afterEach(async () => {
  release();
  jest.restoreAllMocks();
  await sessions.close();
  rmSync(data, { recursive: true });
});

/** Lets go what {@link holdDisk} holds. */
let release = () => {};

/** Holds up the next fsync; resolves when it is asked for. */
function holdDisk(): Promise<void> {
  const datasync = disk.datasync;
  return new Promise<void>((resolve) => {
    jest.spyOn(disk, 'datasync').mockImplementationOnce(async function (this: typeof disk) {
      resolve();
      await new Promise<void>((go) => (release = go));
      return datasync.call(this);
    });
  });
}

async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  const settle = () => (settled = true);
  promise.then(settle, settle);
  await new Promise(setImmediate);
  return settled;
}

/** What the next start would have, if the process ended here. */
async function tokensOnDisk(): Promise<number> {
  const copy = `${data}-copy`;
  cpSync(data, copy, { recursive: true });
  const others = await Sessions.open(model, copy, limits);
  const { tokens } = others.get('anna', stream.id);
  await others.close();
  rmSync(copy, { recursive: true });
  return tokens;
}

test('a feed is answered when its tokens are on the disk, not before', async () => {
  const reached = holdDisk();
  const fed = stream.feed(Int32Array.of(1, 2, 3));
  await reached;
  expect(stream.session.tokens).toBe(3);
  expect(await isSettled(fed)).toBe(false);
  release();
  expect(await fed).toBe(3);
  expect(await tokensOnDisk()).toBe(3);
});

test('a generated token is said when it is on the disk, not before', async () => {
  await stream.feed(Int32Array.of(1));
  const reached = holdDisk();
  const said = stream.generate({ maxTokens: 2 });
  const first = said.next();
  await reached;
  expect(stream.session.tokens).toBe(2);
  const early = await isSettled(first);
  if (early) await said.return(undefined);
  expect(early).toBe(false);
  release();
  expect(((await first).value as Said).tokens).toBe(2);
  expect(await tokensOnDisk()).toBe(2);
  await said.return(undefined);
});

test('what is written is flushed', async () => {
  const calls: string[] = [];
  for (const name of ['appendFile', 'datasync'] as const) {
    const real = disk[name] as (...args: unknown[]) => Promise<void>;
    jest.spyOn(disk, name).mockImplementation(async function (this: unknown, ...args: unknown[]) {
      await real.apply(this, args);
      calls.push(name);
    });
  }
  await stream.feed(Int32Array.of(1));
  expect(calls).toEqual(['appendFile', 'datasync']);
});

test('feeds that wait for the disk do not hold up those behind them, and share its next flush', async () => {
  const reached = holdDisk();
  const first = stream.feed(Int32Array.of(1));
  await reached;
  const flushes = jest.spyOn(disk, 'datasync');
  const rest = Promise.all([stream.feed(Int32Array.of(2)), stream.feed(Int32Array.of(3))]);
  while (stream.session.tokens < 3) await new Promise(setImmediate);
  flushes.mockClear();
  release();
  expect([await first, ...(await rest)]).toEqual([1, 2, 3]);
  expect(flushes).toHaveBeenCalledTimes(1);
});

test('a snapshot that fails leaves the log as it is', async () => {
  await stream.feed(Int32Array.of(1, 2, 3));
  const { snapshot } = filesOf(stream.folder, stream.id);
  mkdirSync(path.join(snapshot, 'in-the-way'), { recursive: true });
  await expect(stream.save()).rejects.toMatchObject({
    code: expect.stringMatching(/EISDIR|ENOTEMPTY|EEXIST/),
  });
  rmSync(snapshot, { recursive: true });
  expect(await tokensOnDisk()).toBe(3);
  await stream.feed(Int32Array.of(4));
  await stream.save();
  expect(await tokensOnDisk()).toBe(4);
});

test('a disk that fails is told to those who wait, and to everybody after them', async () => {
  await stream.feed(Int32Array.of(1));
  jest.spyOn(disk, 'appendFile').mockRejectedValueOnce(new Error('EIO'));
  const refused = { code: 'ERR_JOURNAL', statusCode: 503 };
  await expect(stream.feed(Int32Array.of(2))).rejects.toMatchObject(refused);
  await expect(stream.feed(Int32Array.of(3))).rejects.toMatchObject(refused);
  await expect(stream.generate({ maxTokens: 1 }).next()).rejects.toMatchObject(refused);
  expect(await tokensOnDisk()).toBe(1);
  const silent = jest.spyOn(console, 'error').mockImplementation(() => {});
  await sessions.close();
  expect(silent).toHaveBeenCalledTimes(1); // no snapshot of a state that the log does not have
  expect(await tokensOnDisk()).toBe(1);
});

test('so many calls may wait', async () => {
  await stream.feed(Int32Array.of(1));
  const said = stream.generate({ maxTokens: 5 });
  await said.next(); // it is its turn until it ends
  const waiting = [stream.feed(Int32Array.of(2)), stream.feed(Int32Array.of(3))];
  await expect(stream.feed(Int32Array.of(4))).rejects.toMatchObject({ code: 'ERR_BUSY', statusCode: 429 });
  await said.return(undefined);
  expect(await Promise.all(waiting)).toEqual([3, 4]);
});

test('those who wait for a stream that is deleted are told so', async () => {
  await stream.feed(Int32Array.of(1));
  const said = stream.generate({ maxTokens: 5 });
  await said.next();
  const waiting = expect(stream.feed(Int32Array.of(2))).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  const removed = sessions.remove('anna', stream.id);
  expect([await isSettled(removed), stream.session.closed]).toEqual([false, false]);
  await said.return(undefined);
  await Promise.all([waiting, removed]);
  expect(stream.session.closed).toBe(true);
});

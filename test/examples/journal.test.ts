import { appendFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type Entry, Journal, written } from '../../examples/server/journal';
import { Rng } from '../support/rng';

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-journal-'));
  file = path.join(folder, 'log');
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Entries that follow one another. */
function makeEntries(count: number): Entry[] {
  const rng = new Rng(count);
  let position = 2 ** 40;
  return Array.from({ length: count }, () => {
    const tokens = Int32Array.from({ length: rng.int(1, 5) }, () => rng.int(0, 2 ** 31 - 1));
    const entry = { position, tokens };
    position += tokens.length;
    return entry;
  });
}

async function write(entries: readonly Entry[]): Promise<void> {
  const journal = await Journal.create(file);
  for (const entry of entries) await journal.append(entry);
  await journal.close();
}

async function read() {
  const { journal, entries, cut } = await Journal.open(file);
  await journal.close();
  return { entries, cut };
}

test('entries come back, also those that are appended later', async () => {
  const entries = makeEntries(20);
  await write(entries.slice(0, 12));
  const { journal, entries: first } = await Journal.open(file);
  expect(first).toEqual(entries.slice(0, 12));
  for (const entry of entries.slice(12)) await journal.append(entry);
  await journal.close();
  expect(await read()).toEqual({ entries, cut: 0 });
});

test('entries that come while the disk is at work share the next write', async () => {
  const entries = makeEntries(50);
  const journal = await Journal.create(file);
  const before = { ...written };
  const first = journal.append(entries[0]);
  await new Promise(setImmediate); // it has begun
  await Promise.all([first, ...entries.slice(1).map((entry) => journal.append(entry))]);
  expect(written.entries - before.entries).toBe(50);
  expect(written.groups - before.groups).toBe(2);
  await journal.close();
  expect((await read()).entries).toEqual(entries);
});

test('wherever a write was cut, the entries before it come back and the rest is removed for good', async () => {
  const entries = makeEntries(6);
  const ends = [0];
  for (const { tokens } of entries) ends.push((ends.at(-1) as number) + 16 + 4 * tokens.length);
  await write(entries);
  const bytes = readFileSync(file);
  expect(bytes.length).toBe(ends.at(-1));
  for (let length = 0; length <= bytes.length; length++) {
    writeFileSync(file, bytes.subarray(0, length));
    const whole = ends.filter((end) => end > 0 && end <= length).length;
    expect(await read()).toEqual({ entries: entries.slice(0, whole), cut: length - ends[whole] });
    expect(await read()).toEqual({ entries: entries.slice(0, whole), cut: 0 });
  }
});

test('no byte can be changed unnoticed, and zeros are no entry', async () => {
  const entries = makeEntries(3);
  await write(entries);
  const bytes = readFileSync(file);
  for (let at = 0; at < bytes.length; at++) {
    const spoiled = Buffer.from(bytes);
    spoiled[at] ^= 1 << (at % 8);
    writeFileSync(file, spoiled);
    const { entries: left } = await read();
    expect(left.length).toBeLessThan(entries.length);
    expect(left).toEqual(entries.slice(0, left.length));
  }
  writeFileSync(file, bytes);
  appendFileSync(file, Buffer.alloc(4096)); // as some file systems leave after a power cut
  expect(await read()).toEqual({ entries, cut: 4096 });
});

test('clear forgets what was appended before it, and nothing of what comes after', async () => {
  const entries = makeEntries(3);
  const journal = await Journal.create(file);
  await Promise.all([journal.append(entries[0]), journal.clear(), journal.append(entries[1])]);
  expect((await read()).entries).toEqual([entries[1]]);
  await journal.append(entries[2]);
  await journal.close();
  expect((await read()).entries).toEqual(entries.slice(1));
});

test('after a write that failed nothing is acknowledged any more', async () => {
  const [one, two, three] = makeEntries(3);
  const journal = await Journal.create(file);
  await journal.append(one);
  // A disk that fails once: jest replaces the method that all handles share.
  const handle = await open(file);
  const disk = Object.getPrototypeOf(handle) as typeof handle;
  await handle.close();
  const fails = jest.spyOn(disk, 'datasync').mockRejectedValueOnce(new Error('EIO'));
  const refused = { code: 'ERR_JOURNAL', statusCode: 503 };
  await expect(journal.append(two)).rejects.toMatchObject(refused);
  fails.mockRestore();
  await expect(journal.append(three)).rejects.toMatchObject(refused);
  expect(journal.failure).toMatchObject(refused);
  await journal.close();
  truncateSync(file, 16 + 4 * one.tokens.length + 5);
  expect((await read()).entries).toEqual([one]);
});

test('a log that is there is not made again', async () => {
  await write(makeEntries(1));
  await expect(Journal.create(file)).rejects.toMatchObject({ code: 'EEXIST' });
});

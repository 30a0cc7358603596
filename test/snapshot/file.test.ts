import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import fs, { type FileHandle } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {
  type Device,
  loadModel,
  loadSession,
  loadStream,
  type MemoryStream,
  type Session,
  saveSession,
  saveStream,
} from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject } from '../support/failures';
import { dataOf, makeInput } from '../support/inputs';
import { withHistory } from '../support/refusals';
import { Rng } from '../support/rng';
import { stateOf } from '../support/state';
import { writeTinyModel } from '../support/tiny-model';

let device: Device;
let folder: string;
let file: string;
beforeEach(() => {
  device = openTestDevice();
  folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-'));
  file = path.join(folder, 'state.safetensors');
});
afterEach(() => {
  jest.restoreAllMocks();
  device.close();
  rmSync(folder, { recursive: true });
});

const newStream = () => withHistory(device.createStream({ heads: 1, headDim: 4, segmentLength: 8 }));

test('a saved stream is loaded as it was, and the file is its snapshot', async () => {
  const stream = newStream();
  expect(await saveStream(stream, file)).toBe(undefined);
  expect(readFileSync(file).equals(await stream.snapshot())).toBe(true);
  const loaded = await loadStream(device, file);
  expect(stateOf(loaded)).toEqual(stateOf(stream));
  expect(loaded.config).toEqual(stream.config);
  expect(loaded.attendSync(dataOf(makeInput(stream.config, 1, new Rng(1)))).length).toBe(4);
  expect(readdirSync(folder)).toEqual(['state.safetensors']);
});

test('saving again replaces the file; a relative path counts from where it was given', async () => {
  const stream = newStream();
  await saveStream(stream, file);
  stream.attendSync(dataOf(makeInput(stream.config, 3, new Rng(1))));
  const before = process.cwd();
  process.chdir(folder);
  const saving = saveStream(stream, 'state.safetensors');
  process.chdir(before);
  await saving;
  expect(stateOf(await loadStream(device, file))).toEqual(stateOf(stream));
});

test('a saved session is loaded as it was', async () => {
  await writeTinyModel(path.join(folder, 'model'));
  using model = await loadModel(path.join(folder, 'model'), { device });
  const session = model.createSession();
  await session.feed([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  await saveSession(session, file);
  const loaded = await loadSession(model, file);
  expect(loaded.logits()).toEqual(session.logits());
  expect(Buffer.from(await session.snapshot()).equals(await loaded.snapshot())).toBe(true);
  model.close();
  await expectReject(() => saveSession(session, file), { code: 'ERR_CLOSED' });
  await expectReject(() => loadSession(model, path.join(folder, 'none')), { code: 'ERR_CLOSED' });
});

test('many saves at once to one path: the last call is what stays, and nothing else', async () => {
  const stream = newStream();
  const saves: Promise<void>[] = [];
  for (let i = 0; i < 20; i++) {
    void stream.attend(dataOf(makeInput(stream.config, 1 + (i % 5), new Rng(i))));
    saves.push(saveStream(stream, file));
  }
  await Promise.all(saves);
  expect(stateOf(await loadStream(device, file))).toEqual(stateOf(stream));
  expect(readdirSync(folder)).toEqual(['state.safetensors']);
});

test('a save that fails does not hold up those behind it', async () => {
  const [stream, closed] = [newStream(), newStream()];
  closed.close();
  const saves = [saveStream(stream, file), saveStream(closed, file), saveStream(stream, file)];
  const results = await Promise.allSettled(saves);
  expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
  await expectReject(() => saves[1], { code: 'ERR_CLOSED' });
});

/** Names of what is done to the file system, in order, with what is done to each open file. */
function recordCalls(): string[] {
  const calls: string[] = [];
  const shown = (name: unknown) =>
    String(name)
      .replace(folder, '')
      .replace(/^\/\.infini-stream-\d+-[\da-f]{16}\.tmp$/, 'TEMPORARY');
  const { open, rename, unlink } = fs;
  jest.spyOn(fs, 'open').mockImplementation(async (name, flags, mode) => {
    calls.push(`open ${shown(name)} ${flags}`);
    const handle: FileHandle = await open(name, flags, mode);
    for (const method of ['writeFile', 'sync', 'close'] as const) {
      const original = handle[method].bind(handle) as (...args: unknown[]) => Promise<void>;
      handle[method] = async (...args: unknown[]) => {
        await original(...args);
        calls.push(`${method} ${shown(name)}`);
      };
    }
    return handle;
  });
  jest.spyOn(fs, 'rename').mockImplementation(async (from, to) => {
    calls.push(`rename ${shown(from)} ${shown(to)}`);
    await rename(from, to);
  });
  jest.spyOn(fs, 'unlink').mockImplementation(async (name) => {
    calls.push(`unlink ${shown(name)}`);
    await unlink(name);
  });
  return calls;
}

test('the bytes are on the disk before the name is, and the name before it resolves', async () => {
  const calls = recordCalls();
  await saveStream(newStream(), file);
  expect(calls).toEqual([
    'open TEMPORARY wx',
    'writeFile TEMPORARY',
    'sync TEMPORARY',
    'close TEMPORARY',
    'rename TEMPORARY /state.safetensors',
    'open  r',
    'sync ',
    'close ',
  ]);
});

describe('errors of the operating system', () => {
  const systemError = (code: string) => Object.assign(new Error(`${code}: made up`), { code });

  test('keep their codes', async () => {
    const stream = newStream();
    const nowhere = path.join(folder, 'none', 'state');
    await expect(saveStream(stream, nowhere)).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(loadStream(device, nowhere)).rejects.toMatchObject({ code: 'ENOENT' });
    writeFileSync(file, 'x');
    const below = path.join(file, 'state');
    await expect(saveStream(stream, below)).rejects.toMatchObject({ code: 'ENOTDIR' });
    jest.spyOn(fs, 'open').mockRejectedValue(systemError('EACCES'));
    await expect(saveStream(stream, file)).rejects.toMatchObject({ code: 'EACCES' });
    await expect(loadStream(device, file)).rejects.toMatchObject({ code: 'EACCES' });
    expect(readFileSync(file, 'utf8')).toBe('x');
  });

  test.each(['writeFile', 'sync', 'close'] as const)(
    'of %s leave the old file and no other',
    async (method) => {
      const stream = newStream();
      await saveStream(stream, file);
      const before = readFileSync(file);
      stream.attendSync(dataOf(makeInput(stream.config, 3, new Rng(1))));
      const { open } = fs;
      jest.spyOn(fs, 'open').mockImplementationOnce(async (...args) => {
        const handle = await open(...args);
        const close = handle.close.bind(handle);
        handle[method] = async () => {
          if (method === 'close') await close();
          throw systemError('ENOSPC');
        };
        return handle;
      });
      await expect(saveStream(stream, file)).rejects.toMatchObject({ code: 'ENOSPC' });
      expect(readFileSync(file).equals(before)).toBe(true);
      expect(readdirSync(folder)).toEqual(['state.safetensors']);
      await saveStream(stream, file);
      expect(stateOf(await loadStream(device, file))).toEqual(stateOf(stream));
    },
  );

  test('of rename too: a directory is not replaced', async () => {
    mkdirSync(path.join(file, 'full'), { recursive: true });
    await expect(saveStream(newStream(), file)).rejects.toMatchObject({ code: expect.stringMatching(/^E/) });
    expect(readdirSync(folder)).toEqual(['state.safetensors']);
    await expectReject(() => loadStream(device, file), { code: 'ERR_SNAPSHOT', says: ['a directory'] });
  });
});

describe('temporary files', () => {
  const name = (pid: number | string) => `.infini-stream-${pid}-0123456789abcdef.tmp`;
  const place = (pid: number | string) => path.join(folder, name(pid));
  /** Above the largest id that Linux gives. */
  const DEAD = 2 ** 22 + 1;

  test('of dead processes are removed, those of the living and all other files are not', async () => {
    const others = [
      name(process.ppid),
      `.infini-stream-${DEAD}.tmp`,
      `x${name(DEAD)}`,
      `${name(DEAD)}x`,
      name('x'),
    ];
    for (const other of [name(DEAD), ...others]) writeFileSync(path.join(folder, other), 'x');
    await saveStream(newStream(), file);
    expect(readdirSync(folder).sort()).toEqual([...others, 'state.safetensors'].sort());
  });

  test('of a dead process that had the id of this one are removed', async () => {
    writeFileSync(place(process.pid), 'left by an earlier process');
    const long = new Date(Date.now() - 1000 * process.uptime() - 60_000);
    utimesSync(place(process.pid), long, long);
    await saveStream(newStream(), file);
    expect(readdirSync(folder)).toEqual(['state.safetensors']);
  });

  test('that this process may just be writing are not', async () => {
    writeFileSync(place(process.pid), 'of another thread');
    await saveStream(newStream(), file);
    expect(existsSync(place(process.pid))).toBe(true);
  });
});

test('a file keeps its mode, so that nobody new may read it', async () => {
  const stream = newStream();
  await saveStream(stream, file);
  chmodSync(file, 0o600);
  await saveStream(stream, file);
  expect(statSync(file).mode & 0o777).toBe(0o600);
});

test('a symbolic link is replaced and what it named stays', async () => {
  const other = path.join(folder, 'other');
  writeFileSync(other, 'x');
  symlinkSync(other, file);
  await saveStream(newStream(), file);
  expect(readFileSync(other, 'utf8')).toBe('x');
  expect((await loadStream(device, file)).tokens).toBe(12);
});

test('a file that is no snapshot is refused', async () => {
  const refused = { code: 'ERR_SNAPSHOT', says: [/^Expected /] };
  writeFileSync(file, '');
  await expectReject(() => loadStream(device, file), { ...refused, says: ['at least 8 bytes'] });
  await saveStream(newStream(), file);
  truncateSync(file, statSync(file).size - 1);
  await expectReject(() => loadStream(device, file), refused);
  expect(device.stats().streams).toBeLessThanOrEqual(1);
});

test('arguments are checked', async () => {
  const stream = newStream();
  const TYPE = { code: 'ERR_INVALID_ARG_TYPE' };
  for (const path of [undefined, null, 1, '', 'a\0b', Buffer.from('x'), ['x'], { toString: () => file }]) {
    const wrong = path as unknown as string;
    await expectReject(() => saveStream(stream, wrong), { ...TYPE, says: ['a path for "path"'] });
    await expectReject(() => loadStream(device, wrong), { ...TYPE, says: ['a path for "path"'] });
  }
  for (const one of [
    undefined,
    null,
    {},
    device,
    new Proxy(stream, {}),
    { snapshot: () => stream.snapshot() },
  ]) {
    await expectReject(() => saveStream(one as MemoryStream, file), { ...TYPE, says: ['a MemoryStream'] });
    await expectReject(() => saveSession(one as unknown as Session, file), { ...TYPE, says: ['a Session'] });
  }
  for (const one of [undefined, {}, stream, 'cpu', new Proxy(device, {})]) {
    await expectReject(() => loadStream(one as Device, file), { ...TYPE, says: ['a Device'] });
    await expectReject(() => loadSession(one as never, file), { ...TYPE, says: ['a Model'] });
  }
  expect(readdirSync(folder)).toEqual([]);
  device.close();
  await expectReject(() => saveStream(stream, file), { code: 'ERR_CLOSED' });
  await expectReject(() => loadStream(device, file), { code: 'ERR_CLOSED' });
});

import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import path from 'node:path';
import { type Device, handleOf } from '../device';
import { expected, fail, mismatch } from '../errors';
import { coreOfModel, type Model } from '../model/model';
import { adoptSession, type Session, sessionCoreOf } from '../model/session';
import { checkModelOpen } from '../model/session-core';
import { native } from '../native';
import { adoptStream, coreOf, type MemoryStream } from '../stream';
import { newBytes } from './bytes';
import { refuse } from './format';
import { replaceFile } from './replace';
import { restoreSession, snapshotSession } from './session';
import { restoreStream, snapshotStream } from './stream';

/**
 * Writes `stream.snapshot()` to a file, which at any moment, also when the process or the machine dies, is whole: the
 * old one or the new one. When the promise resolves the new one is on the disk. Saves to one path take effect in call
 * order. A symbolic link is replaced, not followed.
 *
 * The bytes go to a hidden file beside it (`.infini-stream-PID-*.tmp`) first. One that a process leaves when it dies is
 * removed by the next process that saves in that folder: let only processes of one machine do so.
 *
 * Rejects with ERR_INVALID_ARG_TYPE, as `stream.snapshot()` does, and with errors of the operating system under Node's own
 * codes (ENOENT, EACCES, ENOSPC ...).
 */
export async function saveStream(stream: MemoryStream, path: string): Promise<void> {
  const core = coreOf(stream);
  if (!core) throw expected('ERR_INVALID_ARG_TYPE', 'stream', 'a MemoryStream', stream);
  const file = checkPath(path);
  await replaceFile(file, snapshotStream(core));
}

/**
 * `device.restore` of a file's bytes.
 *
 * Rejects with ERR_INVALID_ARG_TYPE, as `device.restore` does, and with errors of the operating system under Node's own codes.
 */
export async function loadStream(device: Device, path: string): Promise<MemoryStream> {
  const handle = handleOf(device);
  if (!handle) throw expected('ERR_INVALID_ARG_TYPE', 'device', 'a Device', device);
  const file = checkPath(path);
  if (native.deviceClosed(handle)) throw fail('ERR_CLOSED', 'Expected an open device but it is closed');
  const { stream, tokens } = await restoreStream(handle, await readFile(file));
  return adoptStream(stream, native.deviceInfo(handle).id, handle, tokens);
}

/** {@link saveStream} for a session. */
export async function saveSession(session: Session, path: string): Promise<void> {
  const core = sessionCoreOf(session);
  if (!core) throw expected('ERR_INVALID_ARG_TYPE', 'session', 'a Session', session);
  const file = checkPath(path);
  await replaceFile(file, snapshotSession(core));
}

/** {@link loadStream} for a session: `model.restoreSession` of a file's bytes. */
export async function loadSession(model: Model, path: string): Promise<Session> {
  const core = coreOfModel(model);
  if (!core) throw expected('ERR_INVALID_ARG_TYPE', 'model', 'a Model', model);
  const file = checkPath(path);
  checkModelOpen(core);
  return adoptSession(await restoreSession(core, await readFile(file)));
}

function checkPath(value: unknown): string {
  if (typeof value === 'string' && value !== '' && !value.includes('\0')) return path.resolve(value);
  throw expected('ERR_INVALID_ARG_TYPE', 'path', 'a path', value);
}

/** Does not wait for a writer where the path is a pipe. */
const FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);

async function readFile(name: string): Promise<Uint8Array<ArrayBuffer>> {
  const file = await open(name, FLAGS);
  try {
    const stats = await file.stat();
    if (!stats.isFile()) {
      const received = stats.isDirectory() ? 'a directory' : 'a pipe or device';
      throw refuse(`expected a regular file but received ${received}`);
    }
    const bytes = newBytes(stats.size, 'a snapshot');
    await fill(file, bytes);
    return bytes;
  } finally {
    await file.close();
  }
}

/** A read takes at most 2 GiB. */
const MOST_READ = 2 ** 26;

async function fill(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesRead } = await file.read(bytes, done, Math.min(MOST_READ, bytes.length - done), done);
    if (bytesRead === 0)
      throw refuse(mismatch(`${bytes.length} bytes`, 'the file', done, 'it was cut while it was read'));
    done += bytesRead;
  }
}

import type { FileHandle } from 'node:fs/promises';
import { fail, type InfiniError } from '../errors';
import { dataBegin, parseHeader, type Refuse, type StoredTensor } from '../safetensors/parser';
import { wrong } from './defects';

/** For what is wrong in this file. */
export const refuseIn =
  (name: string): Refuse =>
  (message) =>
    fail('ERR_MODEL', `${name}: ${message}`);

/**
 * The tensors of a safetensors file by name, their places counted from the beginning of the file. Reads the header
 * alone; `name` is the file's in messages.
 */
export async function readHeader(file: FileHandle, name: string): Promise<Map<string, StoredTensor>> {
  const refuse = refuseIn(name);
  const size = await sizeOf(file, name);
  if (size < 8) throw wrong(name, 'at least 8 bytes', 'the file', size);
  const begin = dataBegin(await readBytes(file, 0, 8, name), size, refuse);
  const { tensors } = parseHeader(await readBytes(file, 8, begin - 8, name), size - begin, refuse);
  for (const tensor of tensors.values()) {
    tensor.begin += begin;
    tensor.end += begin;
  }
  return tensors;
}

export async function sizeOf(file: FileHandle, name: string): Promise<number> {
  const stats = await file.stat().catch((cause) => Promise.reject(unreadable(name, 'file', cause)));
  if (stats.isFile()) return stats.size;
  const received = stats.isDirectory() ? 'a directory' : 'a pipe or device';
  throw fail('ERR_MODEL', `${name}: expected a regular file but received ${received}`);
}

/** All of these bytes. The caller has checked the length against the file's size. */
export async function readBytes(
  file: FileHandle,
  begin: number,
  length: number,
  name: string,
): Promise<Buffer<ArrayBuffer>> {
  const bytes = Buffer.allocUnsafe(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file
      .read(bytes, done, length - done, begin + done)
      .catch((cause) => Promise.reject(unreadable(name, 'file', cause)));
    if (bytesRead === 0) {
      throw wrong(name, `${begin + length} bytes`, 'the file', begin + done, 'it was cut while it was read');
    }
    done += bytesRead;
  }
  return bytes;
}

/** For what the operating system says, such as "ENOENT: no such file or directory, open '...'". */
export function unreadable(name: string, what: 'file' | 'directory', cause: Error): InfiniError {
  const reason = cause.message.replace(/, \w+( '.*')?$/s, '');
  return fail('ERR_MODEL', `${name}: expected a readable ${what} but received ${reason}`);
}

import { constants } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import path from 'node:path';
import { fail, quote } from '../errors';
import { decodeText } from '../safetensors/parser';
import { type ModelConfig, readModelConfig } from './config';
import { isRecord, parseObject, wrong } from './defects';
import { readBytes, readHeader, refuseIn, sizeOf, unreadable } from './safetensors';
import type { ModelTensor } from './weights';

/** A model's directory as Hugging Face lays it out: what its small files say, and its weights' files, open. */
export interface ModelFiles {
  config: ModelConfig;
  tensors: Map<string, ModelTensor>;
  /** The text of tokenizer.json, if there is one. */
  tokenizer: string | undefined;
  /** The files of the tensors. Keep them until {@link close}: Node closes a handle that nothing refers to. */
  handles: FileHandle[];
  close(): Promise<void>;
}

/** Larger files are no such files: they are refused before memory is taken for them. */
const MOST_CONFIG_BYTES = 2 ** 20;
const MOST_INDEX_BYTES = 2 ** 22;
const MOST_TOKENIZER_BYTES = 2 ** 28;

const WEIGHTS = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';

export async function openModelFiles(directory: string): Promise<ModelFiles> {
  await checkDirectory(directory);
  const configFile = path.join(directory, 'config.json');
  const config = readModelConfig(
    await readText(await openFile(configFile), configFile, MOST_CONFIG_BYTES),
    configFile,
  );
  const tokenizerFile = path.join(directory, 'tokenizer.json');
  const tokenizerHandle = await openIfPresent(tokenizerFile);
  const tokenizer = tokenizerHandle && (await readText(tokenizerHandle, tokenizerFile, MOST_TOKENIZER_BYTES));

  const handles: FileHandle[] = [];
  try {
    const tensors = await openTensors(directory, handles);
    const close = async () => {
      await Promise.all(handles.map((handle) => handle.close()));
    };
    return { config, tensors, tokenizer, handles, close };
  } catch (error) {
    await Promise.allSettled(handles.map((handle) => handle.close()));
    throw error;
  }
}

async function checkDirectory(directory: string): Promise<void> {
  const stats = await stat(directory).catch((cause) =>
    Promise.reject(unreadable(directory, 'directory', cause)),
  );
  if (stats.isDirectory()) return;
  throw fail('ERR_MODEL', `${directory}: expected a directory but received another kind of file`);
}

/** One file, or those that the index names. Every handle goes to `handles` as soon as it is open. */
async function openTensors(directory: string, handles: FileHandle[]): Promise<Map<string, ModelTensor>> {
  const tensors = new Map<string, ModelTensor>();
  const single = path.join(directory, WEIGHTS);
  const handle = await openIfPresent(single);
  if (handle !== undefined) {
    await addTensors(handle, single, handles, tensors);
    return tensors;
  }
  const indexFile = path.join(directory, INDEX);
  const indexHandle = await openIfPresent(indexFile);
  if (indexHandle === undefined) {
    throw fail('ERR_MODEL', `${directory}: expected ${WEIGHTS} or ${INDEX} but received neither`);
  }
  const fileOf = readIndex(await readText(indexHandle, indexFile, MOST_INDEX_BYTES), indexFile);
  for (const shard of new Set(fileOf.values())) {
    const file = path.join(directory, shard);
    for (const name of await addTensors(await openFile(file), file, handles, tensors)) {
      if (fileOf.get(name) !== shard)
        throw wrong(indexFile, quote(shard), `tensor ${quote(name)}`, fileOf.get(name));
    }
  }
  for (const [name, shard] of fileOf) {
    if (!tensors.has(name)) {
      const file = path.join(directory, shard);
      throw fail(
        'ERR_MODEL',
        `${file}: expected tensor ${quote(name)}, as the index says, but received none`,
      );
    }
  }
  return tensors;
}

/** Returns the names of the file's tensors. */
async function addTensors(
  handle: FileHandle,
  fileName: string,
  handles: FileHandle[],
  tensors: Map<string, ModelTensor>,
): Promise<Iterable<string>> {
  handles.push(handle);
  const stored = await readHeader(handle, fileName);
  for (const [name, tensor] of stored) tensors.set(name, { ...tensor, file: handle.fd, fileName });
  return stored.keys();
}

/** The index of a model in several files: the file of each tensor. */
function readIndex(text: string, name: string): Map<string, string> {
  const { weight_map: map } = parseObject(text, name);
  if (!isRecord(map)) throw wrong(name, 'an object', '"weight_map"', map);
  const files = new Map<string, string>();
  for (const [tensor, file] of Object.entries(map)) {
    // Nothing outside the model's directory is opened on the word of a file.
    if (typeof file !== 'string' || !/^[^/\\\0]+$/.test(file) || file === '.' || file === '..') {
      throw wrong(name, 'the name of a file in the same directory', `tensor ${quote(tensor)}`, file);
    }
    files.set(tensor, file);
  }
  return files;
}

/** Reads all of the file and closes it. */
async function readText(handle: FileHandle, name: string, mostBytes: number): Promise<string> {
  try {
    const size = await sizeOf(handle, name);
    if (size > mostBytes) throw wrong(name, `at most ${mostBytes} bytes`, 'the file', size);
    return decodeText(await readBytes(handle, 0, size, name), refuseIn(name));
  } finally {
    await handle.close();
  }
}

/** Does not wait for a writer where the path is a pipe; sizeOf then refuses it. */
const FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);

const openFile = (file: string): Promise<FileHandle> =>
  open(file, FLAGS).catch((cause) => Promise.reject(unreadable(file, 'file', cause)));

async function openIfPresent(file: string): Promise<FileHandle | undefined> {
  try {
    return await open(file, FLAGS);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw unreadable(file, 'file', cause as Error);
  }
}

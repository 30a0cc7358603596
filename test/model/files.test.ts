import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { mkdir, readFile, rename, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { openModelFiles } from '../../lib/model/files';
import { readHeader } from '../../lib/model/safetensors';
import {
  expectModelError,
  splitFile,
  type TinyModel,
  withHeader,
  writeTinyModel,
} from '../support/tiny-model';

const INDEX = 'model.safetensors.index.json';
const SHARDS = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];

let folder: string;
let model: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-'));
  model = path.join(folder, 'model');
});
afterEach(() => {
  expect(openFiles()).toEqual([]);
  rmSync(folder, { recursive: true });
});

/** The files of the test's folder that this process holds open; Linux alone tells. */
function openFiles(): string[] {
  if (process.platform !== 'linux') return [];
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const file = readlinkSync(`/proc/self/fd/${fd}`);
      return file.startsWith(folder) ? [file] : [];
    } catch {
      return []; // the listing's own
    }
  });
}

const at = (name: string) => path.join(model, name);
/** Refused with the path of this file in the message. */
const refuse = (name: string, ...says: (string | RegExp)[]) =>
  expectModelError(() => openModelFiles(model), at(name), 'expected', 'but received', ...says);

async function inspect(): Promise<{ names: string[]; tokenizer: string | undefined; files: string[] }> {
  const files = await openModelFiles(model);
  const { tensors, tokenizer, handles } = files;
  expect(new Set([...tensors.values()].map(({ file }) => file))).toEqual(
    new Set(handles.map(({ fd }) => fd)),
  );
  const held = openFiles().map((file) => path.basename(file));
  await files.close();
  return { names: [...tensors.keys()].sort(), tokenizer, files: held.sort() };
}
const namesOf = ({ weights }: TinyModel) => [...weights.keys()].sort();
const held = (...files: string[]) => (process.platform === 'linux' ? files : []);

describe('a model in one file', () => {
  let tiny: TinyModel;
  beforeEach(async () => {
    tiny = await writeTinyModel(model, { layers: 1, segmentLength: 77 });
  });

  test('gives its configuration and tensors, and the file stays open until it is closed', async () => {
    const files = await openModelFiles(model);
    expect(files.config).toMatchObject({ layers: 1, segmentLength: 77 });
    expect(files.tokenizer).toBeUndefined();
    const [handle] = files.handles;
    const stored = await readHeader(handle, 'x');
    expect([...files.tensors]).toEqual(
      [...stored].map(([name, tensor]) => [
        name,
        { ...tensor, file: handle.fd, fileName: at('model.safetensors') },
      ]),
    );
    expect([...stored.keys()].sort()).toEqual(namesOf(tiny));
    expect(openFiles()).toEqual(held(at('model.safetensors')));
    await files.close();
    expect(openFiles()).toEqual([]);
    await files.close();
  });

  test('may have a tokenizer', async () => {
    await writeFile(at('tokenizer.json'), '{"version": "1.0", "x": "\u00e4\ud83d\ude00"}');
    expect((await inspect()).tokenizer).toBe('{"version": "1.0", "x": "\u00e4\ud83d\ude00"}');
  });

  test('may begin its text files with a byte order mark', async () => {
    const config = await readFile(at('config.json'));
    await writeFile(at('config.json'), Buffer.concat([Buffer.of(0xef, 0xbb, 0xbf), config]));
    await writeFile(at('tokenizer.json'), '\ufeff{}');
    expect((await inspect()).tokenizer).toBe('{}');
  });

  test('may be links to files elsewhere, as in the cache of Hugging Face', async () => {
    for (const name of ['config.json', 'model.safetensors']) {
      await rename(at(name), path.join(folder, name));
      await symlink(path.join('..', name), at(name));
    }
    expect((await inspect()).names).toEqual(namesOf(tiny));
  });

  test('is taken although there is an index too', async () => {
    await writeFile(at(INDEX), 'no index');
    expect((await inspect()).files).toEqual(held('model.safetensors'));
  });

  test('must be a directory', async () => {
    const refusePath = (where: string, ...says: string[]) =>
      expectModelError(() => openModelFiles(where), ...says);
    await refusePath(path.join(folder, 'none'), path.join(folder, 'none'), 'a readable directory', 'ENOENT');
    await refusePath(at('config.json'), at('config.json'), 'a directory', 'another kind');
    await refusePath(path.join(at('config.json'), 'x'), 'a readable directory', 'ENOTDIR');
    await refusePath('', 'a readable directory', 'ENOENT');
    await refusePath('a\0b', 'a readable directory', 'null bytes');
  });

  test('must have a configuration', async () => {
    await rm(at('config.json'));
    await refuse('config.json', 'a readable file', /received ENOENT: no such file or directory$/);
  });

  test('must have weights', async () => {
    await rm(at('model.safetensors'));
    await expectModelError(
      () => openModelFiles(model),
      `${model}: `,
      'model.safetensors or',
      INDEX,
      'neither',
    );
  });

  test('must have a configuration and weights that make sense, and the messages say where they do not', async () => {
    await writeFile(at('model.safetensors'), withHeader('{"x":1}', Buffer.alloc(4)));
    await refuse('model.safetensors', 'tensor "x"');
    await writeFile(at('config.json'), JSON.stringify({ ...tiny.config, num_hidden_layers: 0 }));
    await refuse('config.json', '"num_hidden_layers"', 'received 0');
    await writeFile(at('config.json'), '{');
    await refuse('config.json', 'JSON');
  });
});

describe.each(['config.json', 'tokenizer.json', 'model.safetensors', INDEX, SHARDS[1]])('%s', (name) => {
  beforeEach(async () => {
    await writeTinyModel(model, { layers: 1, shards: name === INDEX || name === SHARDS[1] ? 2 : 0 });
    await rm(at(name), { force: true });
  });

  test('is a file, not a directory', async () => {
    await mkdir(at(name));
    await refuse(name, 'a regular file', 'received a directory');
  });

  test('is a file, not a pipe that nobody writes to', async () => {
    execFileSync('mkfifo', [at(name)]);
    await refuse(name, 'a regular file', 'received a pipe');
  });

  test('can be opened', async () => {
    await symlink(name, at(name));
    await refuse(name, 'a readable file', /received ELOOP: [^,]*$/);
  });

  test('is not of other bytes than UTF-8, or no header', async () => {
    await writeFile(at(name), Buffer.of(0x22, 0xff, 0x22));
    await refuse(name, name.endsWith('.json') ? 'UTF-8' : 'at least 8 bytes');
  });
});

test.each([
  ['config.json', 2 ** 20],
  ['tokenizer.json', 2 ** 28],
  [INDEX, 2 ** 22],
])('%s has at most %d bytes', async (name, most) => {
  await writeTinyModel(model, { layers: 1, shards: 2 });
  const text = name === 'tokenizer.json' ? '{}' : await readFile(at(name), 'utf8');
  if (most < 2 ** 28) {
    await writeFile(at(name), text.padEnd(most));
    expect((await inspect()).files).toEqual(held(...SHARDS));
  }
  await writeFile(at(name), text);
  await truncate(at(name), most + 1);
  await refuse(name, `at most ${most} bytes`, `received ${most + 1}`);
});

describe('a model in several files', () => {
  let tiny: TinyModel;
  let map: Record<string, unknown>;
  beforeEach(async () => {
    tiny = await writeTinyModel(model, { layers: 1, shards: 2 });
    map = JSON.parse(await readFile(at(INDEX), 'utf8')).weight_map;
  });
  const writeIndex = (index: unknown) => writeFile(at(INDEX), JSON.stringify(index));

  test('gives the tensors of all of them', async () => {
    const { names, files } = await inspect();
    expect(names).toEqual(namesOf(tiny));
    expect(files).toEqual(held(...SHARDS));
    const opened = await openModelFiles(model);
    for (const [name, { fileName }] of opened.tensors) expect(fileName).toBe(at(map[name] as string));
    await opened.close();
  });

  test('has an index in JSON with a map of names', async () => {
    await writeFile(at(INDEX), '{"weight_map": {');
    await refuse(INDEX, 'JSON');
    await writeFile(at(INDEX), '[]');
    await refuse(INDEX, 'an object', 'received []');
    for (const value of [undefined, null, [], 'x', 1]) {
      await writeIndex({ metadata: {}, weight_map: value });
      await refuse(INDEX, 'an object', '"weight_map"');
    }
  });

  test('has them all in its own directory', async () => {
    await rename(at(SHARDS[1]), path.join(folder, SHARDS[1]));
    const names = [
      `../${SHARDS[1]}`,
      path.join(folder, SHARDS[1]),
      `x/../../${SHARDS[1]}`,
      `./${SHARDS[0]}`,
      `..\\${SHARDS[1]}`,
      '..',
      '.',
      '',
      '/',
      `${SHARDS[0]}\0`,
      `x\n/${SHARDS[0]}`,
      1,
      null,
      [SHARDS[0]],
      {},
    ];
    for (const name of names) {
      await writeIndex({ weight_map: { ...map, 'lm_head.weight': name } });
      await refuse(INDEX, 'a file in the same directory', 'tensor "lm_head.weight"');
    }
  });

  test('has every file that the index names', async () => {
    await writeIndex({ weight_map: { ...map, x: 'other.safetensors' } });
    await refuse('other.safetensors', 'a readable file', 'ENOENT');
    await writeIndex({ weight_map: map });
    await rm(at(SHARDS[1]));
    await refuse(SHARDS[1], 'a readable file', 'ENOENT');
  });

  test('has every tensor where the index says', async () => {
    await writeIndex({ weight_map: { ...map, 'x\n': SHARDS[0] } });
    await refuse(SHARDS[0], 'tensor "x\\n", as the index says', 'received none');
    for (const name of namesOf(tiny)) {
      const other = SHARDS[map[name] === SHARDS[0] ? 1 : 0];
      await writeIndex({ weight_map: { ...map, [name]: other } });
      await refuse(INDEX, `"${map[name]}" for tensor "${name}"`, `'${other}'`);
      const { [name]: _, ...rest } = map;
      await writeIndex({ weight_map: rest });
      await refuse(INDEX, `"${map[name]}" for tensor "${name}"`, 'undefined');
    }
  });

  test('has no tensor in two of them', async () => {
    const name = 'model.norm.weight';
    const [wrongShard] = SHARDS.filter((shard) => shard !== map[name]);
    const { header, data } = splitFile(await readFile(at(wrongShard)));
    const more = { ...JSON.parse(header), [name]: { dtype: 'F32', shape: [0], data_offsets: [0, 0] } };
    await writeFile(at(wrongShard), withHeader(JSON.stringify(more), data));
    await refuse(INDEX, `"${wrongShard}" for tensor "${name}"`, `'${map[name]}'`);
  });

  test('may name its tensors anything', async () => {
    const names = ['__proto__', 'constructor', ''];
    const empty = names.map((name) => `"${name}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`);
    await writeFile(at('more'), withHeader(`{${empty.join()}}`, Buffer.alloc(0)));
    const more = names.map((name) => `,"${name}":"more"`).join('');
    await writeFile(at(INDEX), JSON.stringify({ weight_map: map }).replace(/}}$/, `${more}}}`));
    expect((await inspect()).names).toEqual([...namesOf(tiny), ...names].sort());
  });

  test('may be of no files at all, which lacks all tensors', async () => {
    await writeIndex({ weight_map: {} });
    expect(await inspect()).toEqual({ names: [], tokenizer: undefined, files: [] });
  });
});

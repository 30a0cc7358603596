import { mkdtempSync, rmSync } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { openModelFiles } from '../../lib/model/files';
import { findWeights, readGates } from '../../lib/model/weights';
import type { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { splitFile, withHeader, writeTinyModel } from '../support/tiny-model';

/** Whatever happens to a model's files, reading them gives the same model or ERR_MODEL. */
const MUTATIONS = 500;
const INDEX = 'model.safetensors.index.json';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

type Files = Map<string, Buffer>;
type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
/** 'same': the model must be read as it was; 'structure': but for its numbers; 'either': as it was, or not at all. */
type Outcome = 'same' | 'structure' | 'refused' | 'either';
interface Mutation {
  outcome: Outcome;
  mutate: (files: Files, rng: Rng) => void;
}

async function readModel(directory: string) {
  const files = await openModelFiles(directory);
  try {
    const { weights, gates, gated } = findWeights(files.config, files.tensors);
    const numbers = await readGates(gates, files.handles);
    const stored = await Promise.all(
      weights.map(async ({ file, begin, dtype, rows, columns }) => {
        const bytes = Buffer.alloc(rows * columns * (dtype === 'float32' ? 4 : 2));
        const handle = files.handles.find(({ fd }) => fd === file);
        await handle?.read(bytes, 0, bytes.length, begin);
        return bytes.toString('hex');
      }),
    );
    const structure = weights.map(({ kind, layer, dtype, rows, columns }) => [
      kind,
      layer,
      dtype,
      rows,
      columns,
    ]);
    return { structure: { config: files.config, structure, gated }, numbers: { gates: numbers, stored } };
  } finally {
    await files.close();
  }
}

const weightFiles = (files: Files) => [...files.keys()].filter((name) => name.endsWith('.safetensors'));

/** Changes one of the files of weights. */
const inWeights = (change: (file: Buffer, rng: Rng) => Buffer) => (files: Files, rng: Rng) => {
  const name = rng.pick(weightFiles(files));
  files.set(name, change(Buffer.from(files.get(name) as Buffer), rng));
};

/** Changes the JSON of a header, whose other entries stay what they are. */
const inHeader = (change: (header: Header, rng: Rng, names: string[]) => void) =>
  inWeights((file, rng) => {
    const { header, data } = splitFile(file);
    const json = JSON.parse(header) as Header;
    change(
      json,
      rng,
      Object.keys(json).filter((name) => name !== '__metadata__'),
    );
    return withHeader(JSON.stringify(json), data);
  });

const inIndex =
  (change: (map: Record<string, string>, rng: Rng, name: string) => void) => (files: Files, rng: Rng) => {
    const index = JSON.parse(String(files.get(INDEX)));
    change(index.weight_map, rng, rng.pick(Object.keys(index.weight_map)));
    files.set(INDEX, Buffer.from(JSON.stringify(index)));
  };

function flip(bytes: Buffer, begin: number, end: number, rng: Rng): Buffer {
  bytes[rng.int(begin, end - 1)] ^= rng.int(1, 255);
  return bytes;
}

const headerEnd = (file: Buffer) => 8 + Number(file.readBigUInt64LE());
const bytesIn = ({ data_offsets: [begin, end] }: Header[string]) => end - begin;

const mutations: Record<string, Mutation> = {
  'a byte of the header': {
    outcome: 'either',
    mutate: inWeights((file, rng) => flip(file, 8, headerEnd(file), rng)),
  },
  'some bytes of the header': {
    outcome: 'either',
    mutate: inWeights((file, rng) => {
      const end = headerEnd(file);
      for (let i = rng.int(2, 6); i > 0; i--) flip(file, 8, end, rng);
      return file;
    }),
  },
  "a byte of the header's length": {
    outcome: 'refused',
    mutate: inWeights((file, rng) => flip(file, 0, 8, rng)),
  },
  'a byte of the data': {
    outcome: 'structure',
    mutate: inWeights((file, rng) => flip(file, headerEnd(file), file.length, rng)),
  },
  truncation: {
    outcome: 'refused',
    mutate: inWeights((file, rng) => file.subarray(0, rng.int(0, file.length - 1))),
  },
  'truncation of the configuration': {
    outcome: 'either', // its last byte is the end of the line
    mutate: (files, rng) => {
      const config = files.get('config.json') as Buffer;
      files.set('config.json', config.subarray(0, rng.int(0, config.length - 1)));
    },
  },
  'bytes at the end': {
    outcome: 'refused',
    mutate: inWeights((file, rng) => Buffer.concat([file, Buffer.alloc(rng.int(1, 20), rng.int(0, 255))])),
  },
  'a file gone': {
    outcome: 'refused',
    mutate: (files, rng) => files.delete(rng.pick([...files.keys()])),
  },
  'two tensors of different sizes in each other’s place': {
    outcome: 'refused',
    mutate: inHeader((header, rng, names) => {
      const one = header[rng.pick(names)];
      const other = header[rng.pick(names.filter((name) => bytesIn(header[name]) !== bytesIn(one)))];
      [one.data_offsets, other.data_offsets] = [other.data_offsets, one.data_offsets];
    }),
  },
  'an offset': {
    outcome: 'refused',
    mutate: inHeader((header, rng, names) => {
      header[rng.pick(names)].data_offsets[rng.int(0, 1)] += rng.pick([
        -4,
        -1,
        1,
        4,
        2 ** 31,
        2 ** 52,
        1e300,
        0.5,
      ]);
    }),
  },
  'both offsets of a tensor': {
    outcome: 'refused',
    mutate: inHeader((header, rng, names) => {
      const tensor = header[rng.pick(names)];
      const shift = rng.pick([-48, -4, -1, 1, 4, 48]);
      tensor.data_offsets = tensor.data_offsets.map((offset) => offset + shift) as [number, number];
    }),
  },
  'a dimension': {
    outcome: 'refused',
    mutate: inHeader((header, rng, names) => {
      const { shape } = header[rng.pick(names)];
      shape[rng.int(0, shape.length - 1)] += rng.pick([-1000, -1, 1, 0.5, 2 ** 31, 2 ** 53, 1e300]);
    }),
  },
  'another shape of as many elements': {
    outcome: 'refused',
    mutate: inHeader((header, rng, names) => {
      const tensor = header[rng.pick(names.filter((name) => new Set(header[name].shape).size > 1))];
      const { shape } = tensor;
      const flat = shape.reduce((a, b) => a * b, 1);
      tensor.shape = rng.pick([[...shape].reverse(), [flat], [1, ...shape], [...shape, 1], [flat, 1]]);
    }),
  },
  'a type': {
    outcome: 'refused',
    mutate: inHeader((header, rng, names) => {
      const types = ['F16', 'BF16', 'F64', 'I32', 'U32', 'U8', 'F4', 'BOOL', 'f32', 'toString', ''];
      header[rng.pick(names)].dtype = rng.pick(types);
    }),
  },
  'a value of another type': {
    outcome: 'refused',
    mutate: inHeader((header, rng, names) => {
      const odd: unknown = rng.pick([
        null,
        true,
        'x',
        7,
        [],
        {},
        ['0', '4'],
        [null, null],
        [[0, 4]],
        { length: 2 },
      ]);
      const name = rng.pick(names);
      const key = rng.pick(['dtype', 'shape', 'data_offsets', '']);
      Object.assign(key === '' ? header : header[name], { [key === '' ? name : key]: odd });
    }),
  },
  'a key less': {
    outcome: 'refused',
    mutate: inHeader((header, rng, names) => {
      const tensor = header[rng.pick(names)];
      delete (tensor as Partial<Header[string]>)[rng.pick(['dtype', 'shape', 'data_offsets'] as const)];
    }),
  },
  'a tensor less': {
    outcome: 'refused',
    mutate: inHeader((header, rng, names) => delete header[rng.pick(names)]),
  },
  'a tensor more': {
    outcome: 'refused',
    mutate: inHeader((header, rng, names) => {
      header[`${rng.pick(names)}${rng.pick(['', '.bias'])} `] = {
        dtype: 'F32',
        shape: [0],
        data_offsets: [0, 0],
      };
    }),
  },
  'a tensor twice': {
    outcome: 'refused',
    mutate: inWeights((file) => {
      const { header, data } = splitFile(file);
      const [entry] = header.match(/"model\.[^{]*{[^}]*}/) as RegExpMatchArray;
      return withHeader(header.replace(/}\s*$/, `,${entry}}`), data);
    }),
  },
  'other metadata, order and white space': {
    outcome: 'same',
    mutate: inWeights((file, rng) => {
      const { header, data } = splitFile(file);
      const { __metadata__: _, ...tensors } = JSON.parse(header);
      const entries = Object.entries(tensors);
      const cut = rng.int(0, entries.length);
      const turned = Object.fromEntries([...entries.slice(cut), ...entries.slice(0, cut)]);
      const text = JSON.stringify({ ...turned, __metadata__: { x: `${rng.bits()}` } }, null, rng.int(0, 2));
      return withHeader(text + ' '.repeat(rng.int(0, 9)), data);
    }),
  },
};

const indexMutations: Record<string, Mutation> = {
  'a tensor in the wrong file': {
    outcome: 'refused',
    mutate: inIndex((map, _, name) => {
      map[name] = Object.values(map).find((file) => file !== map[name]) as string;
    }),
  },
  'a name less in the index': {
    outcome: 'refused',
    mutate: inIndex((map, _, name) => delete map[name]),
  },
  'a name more in the index': {
    outcome: 'refused',
    mutate: inIndex((map, rng, name) => {
      map[`${name}.`] = rng.pick([map[name], 'none', '..', '../model.safetensors', '']);
    }),
  },
  'truncation of the index': {
    outcome: 'refused',
    mutate: (files, rng) => {
      const index = files.get(INDEX) as Buffer;
      files.set(INDEX, index.subarray(0, rng.int(0, index.length - 1)));
    },
  },
};

async function writeFiles(directory: string, files: Files): Promise<void> {
  rmSync(directory, { recursive: true, force: true });
  await mkdir(directory);
  for (const [name, bytes] of files) await writeFile(path.join(directory, name), bytes);
}

type Result = { model: Awaited<ReturnType<typeof readModel>> } | { error: unknown };

function check(
  outcome: Outcome,
  result: Result,
  original: Awaited<ReturnType<typeof readModel>>,
): 'read' | 'refused' {
  if ('error' in result) {
    const { code, name, message } = result.error as Error & { code?: string };
    expect({ code, name }).toEqual({ code: 'ERR_MODEL', name: 'Error' });
    expect(message).toMatch(/expected .* but received /is);
    expect(message.length).toBeLessThan(1000);
    // A number of a gate may have become NaN or Infinity.
    if (outcome === 'structure') expect(message).toContain('finite');
    else expect(outcome).not.toBe('same');
    return 'refused';
  }
  expect(outcome).not.toBe('refused');
  expect(result.model.structure).toEqual(original.structure);
  if (outcome !== 'structure') expect(result.model.numbers).toEqual(original.numbers);
  return 'read';
}

/** The metadata are long: flips there leave the model as it is. */
describe.each([0, 2])('a model with an index of %d files', (shards) => {
  let pristine: Files;
  let original: Awaited<ReturnType<typeof readModel>>;
  beforeAll(async () => {
    const directory = path.join(folder, 'pristine');
    rmSync(directory, { recursive: true, force: true });
    await writeTinyModel(directory, {
      layers: 2,
      heads: 2,
      kvHeads: 1,
      width: 6,
      mlpWidth: 10,
      vocabulary: 9,
      shards,
    });
    const names = await readdir(directory);
    pristine = new Map(
      await Promise.all(
        names.map(async (name) => [name, await readFile(path.join(directory, name))] as const),
      ),
    );
    for (const name of weightFiles(pristine)) {
      const { header, data } = splitFile(pristine.get(name) as Buffer);
      pristine.set(name, withHeader(header.replace('"pt"', `"${'ignored '.repeat(200)}"`), data));
    }
    await writeFiles(directory, pristine);
    original = await readModel(directory);
    expect(original.numbers.stored.join('')).toMatch(/[1-9a-f]{8}/);
  });

  const all = Object.entries(shards === 0 ? mutations : { ...mutations, ...indexMutations });

  seededTest(`is the same or refused after any of ${MUTATIONS} mutations`, async (rng) => {
    const directory = path.join(folder, 'mutated');
    const seen = new Set<string>();
    for (let i = 0; i < MUTATIONS; i++) {
      // Each kind in turn, and the flips twice as often: of these only some hit something that matters.
      const [name, { outcome, mutate }] = rng.int(0, 2) === 0 ? all[rng.int(0, 1)] : all[i % all.length];
      const files = new Map(pristine);
      mutate(files, rng);
      await writeFiles(directory, files);
      const result = await readModel(directory).then(
        (model): Result => ({ model }),
        (error): Result => ({ error }),
      );
      try {
        seen.add(`${name}: ${check(outcome, result, original)}`);
      } catch (error) {
        (error as Error).message = `mutation ${i}, ${name}: ${(error as Error).message}`;
        throw error;
      }
    }
    // Nothing was vacuous.
    for (const [name, { outcome }] of all) {
      if (outcome === 'either') expect(seen).toContain(`${name}: refused`);
      else expect(seen).toContain(`${name}: ${outcome === 'refused' ? 'refused' : 'read'}`);
    }
    expect(seen).toContain('a byte of the header: read');
  });
});

import { mkdtempSync, rmSync } from 'node:fs';
import { type FileHandle, open, readFile, truncate, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { DType } from '../../lib';
import { openModelFiles } from '../../lib/model/files';
import { findWeights, type ModelTensor, readGates, type WeightKind } from '../../lib/model/weights';
import { BFLOAT16, decodeHalf, FLOAT16 } from '../reference/half';
import { bytesOf, DTYPES, decode, encode } from '../support/tensors';
import { expectModelError, type TinyModelOptions, writeTinyModel } from '../support/tiny-model';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

async function withModel<T>(
  options: TinyModelOptions,
  use: (
    files: Awaited<ReturnType<typeof openModelFiles>>,
    model: Awaited<ReturnType<typeof writeTinyModel>>,
  ) => Promise<T> | T,
): Promise<T> {
  rmSync(folder, { recursive: true });
  const model = await writeTinyModel(folder, options);
  const files = await openModelFiles(folder);
  try {
    return await use(files, model);
  } finally {
    await files.close();
  }
}

const names: Record<WeightKind, string> = {
  embedding: 'model.embed_tokens.weight',
  attentionNorm: 'input_layernorm.weight',
  query: 'self_attn.q_proj.weight',
  key: 'self_attn.k_proj.weight',
  value: 'self_attn.v_proj.weight',
  output: 'self_attn.o_proj.weight',
  mlpNorm: 'post_attention_layernorm.weight',
  mlpGate: 'mlp.gate_proj.weight',
  mlpUp: 'mlp.up_proj.weight',
  mlpDown: 'mlp.down_proj.weight',
  finalNorm: 'model.norm.weight',
  head: 'lm_head.weight',
};
const ofLayer = (kind: WeightKind) => !['embedding', 'finalNorm', 'head'].includes(kind);
const nameOf = (kind: WeightKind, layer: number) =>
  ofLayer(kind) ? `model.layers.${layer}.${names[kind]}` : names[kind];

const options = { vocabulary: 24, width: 12, heads: 4, kvHeads: 2, headDim: 6, mlpWidth: 20, layers: 2 };
const shapes: Record<WeightKind, [number, number]> = {
  embedding: [24, 12],
  attentionNorm: [1, 12],
  query: [24, 12],
  key: [12, 12],
  value: [12, 12],
  output: [12, 24],
  mlpNorm: [1, 12],
  mlpGate: [20, 12],
  mlpUp: [20, 12],
  mlpDown: [12, 20],
  finalNorm: [1, 12],
  head: [24, 12],
};

describe.each(DTYPES)('a model in %s', (dtype) => {
  test.each([
    { tied: false, gated: true, shards: 0 },
    { tied: true, gated: true, shards: 3 },
    { tied: false, gated: false, shards: 2 },
    { tied: true, gated: false, shards: 0 },
  ])('has all its weights: %j', (form) =>
    withModel({ ...options, ...form, dtype }, async (files, model) => {
      const { weights, gates, gated } = findWeights(files.config, files.tensors);
      expect(gated).toBe(form.gated);

      const kinds = (Object.keys(names) as WeightKind[]).filter((kind) => form.gated || kind !== 'mlpGate');
      const wanted = kinds.flatMap((kind) => (ofLayer(kind) ? [`${kind} 0`, `${kind} 1`] : [`${kind} 0`]));
      expect(weights.map(({ kind, layer }) => `${kind} ${layer}`).sort()).toEqual(wanted.sort());

      for (const { kind, layer, rows, columns, file, begin, ...rest } of weights) {
        expect([kind, rows, columns]).toEqual([kind, ...shapes[kind]]);
        const name = form.tied && kind === 'head' ? names.embedding : nameOf(kind, layer);
        expect(rest).toEqual({ dtype, fileName: files.tensors.get(name)?.fileName });
        const values = model.weights.get(name) as Float64Array;
        expect(await readAt(files.handles, file, begin, values.length, dtype)).toEqual(values);
      }
      expect(await readGates(gates, files.handles)).toEqual(
        [0, 1].map((layer) => [
          ...(model.weights.get(`model.layers.${layer}.self_attn.gate`) as Float64Array),
        ]),
      );
    }),
  );
});

async function readAt(
  handles: FileHandle[],
  fd: number,
  begin: number,
  length: number,
  dtype: DType,
): Promise<Float64Array> {
  const tensor = encode(dtype, new Float64Array(length));
  const handle = handles.find((one) => one.fd === fd) as FileHandle;
  await handle.read(bytesOf(tensor), 0, tensor.byteLength, begin);
  return decode(dtype, tensor);
}

/** Descriptions of tensors, as a file's header gives them. */
function tensorsOf(shape: Record<string, number[]>): Map<string, ModelTensor> {
  let end = 100;
  return new Map(
    Object.entries(shape).map(([name, sizes]) => {
      const begin = end;
      end += 4 * sizes.reduce((a, b) => a * b, 1);
      return [name, { dtype: 'F32', shape: sizes, begin, end, file: 7, fileName: 'w.safetensors' }];
    }),
  );
}

describe('of a model', () => {
  let config: Parameters<typeof findWeights>[0];
  let shapesByName: Record<string, number[]>;
  beforeAll(() =>
    withModel(options, (files, model) => {
      ({ config } = files);
      shapesByName = Object.fromEntries(model.shapes);
    }),
  );
  const find = (change: (tensors: Map<string, ModelTensor>) => void, tied = false) => {
    const tensors = tensorsOf(shapesByName);
    change(tensors);
    return findWeights({ ...config, tied }, tensors);
  };
  const refuse = (change: (tensors: Map<string, ModelTensor>) => void, ...says: (string | RegExp)[]) =>
    expectModelError(() => find(change), /expected /i, 'but received', ...says);
  const allNames = () => Object.keys(shapesByName);

  test('that these tests spoil, everything fits', () => {
    expect(allNames()).toHaveLength(3 + 2 * 10);
    expect(find(() => {}).weights).toHaveLength(3 + 2 * 9);
  });

  test('every tensor must be there', async () => {
    for (const name of allNames()) {
      // Without the gate of layer 0 the MLP has none, and that of layer 1 is one too many.
      const isGate = name === 'model.layers.0.mlp.gate_proj.weight';
      const says = isGate
        ? ['w.safetensors', 'model of 2 layers without biases', '"model.layers.1.mlp.gate_proj.weight"']
        : [`tensor "${name}" [${shapesByName[name].join(', ')}]`, 'received none'];
      await refuse((tensors) => tensors.delete(name), ...says);
    }
  });

  test('a missing gate of the attention is what a Llama checkpoint lacks', () =>
    refuse(
      (tensors) => tensors.delete('model.layers.1.self_attn.gate'),
      '"model.layers.1.self_attn.gate" [4]',
      'a Llama checkpoint has none',
      'one number per head',
    ));

  test('a missing head may be tied, and the message says so', () =>
    refuse(
      (tensors) => tensors.delete('lm_head.weight'),
      '"lm_head.weight" [24, 12]',
      'tie_word_embeddings',
    ));

  test('every tensor has its shape', async () => {
    for (const name of allNames()) {
      const shape = shapesByName[name];
      const wrong = [
        [],
        [...shape, 1],
        [1, ...shape],
        shape.map((size, i) => size + Number(i === 0)),
        shape.map((size, i) => size - Number(i === shape.length - 1)),
        [shape.reduce((a, b) => a * b, 1), 1],
        ...(shape.length === 2 && shape[0] !== shape[1] ? [[shape[1], shape[0]]] : []),
      ];
      for (const sizes of wrong) {
        const received = `[${sizes.join(', ')}]`;
        await refuse(
          (tensors) => Object.assign(tensors.get(name) as ModelTensor, { shape: sizes }),
          /^w\.safetensors: /,
          `[${shape.join(', ')}] for the shape of tensor "${name}" but received ${received}`,
        );
      }
    }
  });

  test('every tensor has one of three types', async () => {
    for (const name of allNames()) {
      for (const dtype of ['F64', 'I32', 'U32', 'F8_E4M3', 'BOOL', 'float32']) {
        await refuse(
          (tensors) => Object.assign(tensors.get(name) as ModelTensor, { dtype }),
          /^w\.safetensors: /,
          `F32, BF16 or F16 for the dtype of tensor "${name}" but received '${dtype}'`,
        );
      }
    }
  });

  test.each([
    'model.layers.2.input_layernorm.weight',
    'model.layers.2.mlp.gate_proj.weight',
    'model.layers.-1.input_layernorm.weight',
    'model.layers.00.input_layernorm.weight',
    'model.layers.0.self_attn.q_proj.bias',
    'model.layers.0.self_attn.gate.weight',
    'model.layers.0.self_attn.rotary_emb.inv_freq.x',
    'model.norm.bias',
    'lm_head.bias',
    'embed_tokens.weight',
    '__proto__',
    '',
  ])('%j is none', (name) =>
    refuse(
      (tensors) => tensors.set(name, tensorsOf({ [name]: [12] }).get(name) as ModelTensor),
      /^w\.safetensors: /,
      'only the tensors of a Llama model of 2 layers',
      `received ${JSON.stringify(name)}`,
    ),
  );

  test('the frequencies of rotary positions are not looked at', () => {
    const before = find(() => {});
    const after = find((tensors) => {
      const frequencies = tensorsOf({ x: [3] }).get('x') as ModelTensor;
      for (const at of ['model', 'model.layers.0.self_attn', 'model.layers.9.self_attn']) {
        tensors.set(`${at}.rotary_emb.inv_freq`, { ...frequencies, dtype: 'F64' });
      }
    });
    expect(after).toEqual(before);
  });

  test('a tied head is the embedding, whether it is stored or not', () => {
    const tied = find((tensors) => tensors.delete('lm_head.weight'), true);
    const [embedding] = tied.weights;
    expect(embedding).toEqual({
      kind: 'embedding',
      layer: 0,
      dtype: 'float32',
      file: 7,
      fileName: 'w.safetensors',
      begin: 100,
      rows: 24,
      columns: 12,
    });
    expect(tied.weights.at(-1)).toEqual({ ...embedding, kind: 'head' });
    const stored = find((tensors) => {
      Object.assign(tensors.get('lm_head.weight') as ModelTensor, { shape: [1], dtype: 'I8' });
    }, true);
    expect(stored).toEqual(tied);
    expect(find(() => {}).weights.at(-1)?.begin).toBeGreaterThan(100);
  });

  test('the MLP has a gate in all layers or in none', async () => {
    const without = find((tensors) => {
      for (const layer of [0, 1]) tensors.delete(`model.layers.${layer}.mlp.gate_proj.weight`);
    });
    expect(without.gated).toBe(false);
    expect(without.weights.map(({ kind }) => kind)).not.toContain('mlpGate');
    await refuse(
      (tensors) => tensors.delete('model.layers.1.mlp.gate_proj.weight'),
      '"model.layers.1.mlp.gate_proj.weight" [20, 12]',
    );
  });

  test('each tensor may have a type and a file of its own', () => {
    const { weights } = find((tensors) => {
      Object.assign(tensors.get('model.norm.weight') as ModelTensor, { dtype: 'BF16', file: 8 });
      Object.assign(tensors.get('lm_head.weight') as ModelTensor, { dtype: 'F16', file: 9 });
    });
    expect(weights.filter(({ file }) => file !== 7)).toMatchObject([
      { kind: 'finalNorm', dtype: 'bfloat16', file: 8 },
      { kind: 'head', dtype: 'float16', file: 9 },
    ]);
  });
});

describe('gates', () => {
  /** Reads one gate of these bytes, which begin at an odd place. */
  async function readGate(dtype: string, bytes: Uint8Array, missing = 0): Promise<number[]> {
    const name = path.join(folder, 'gate');
    await writeFile(name, Buffer.concat([Buffer.of(1, 2, 3), bytes]));
    await truncate(name, 3 + bytes.length - missing);
    const handle = await open(name);
    try {
      const place = { begin: 3, end: 3 + bytes.length, file: handle.fd, fileName: 'g.safetensors' };
      const [gate] = await readGates([{ dtype, shape: [1], ...place }], [handle]);
      return gate;
    } finally {
      await handle.close();
    }
  }

  test.each([
    ['F16', FLOAT16],
    ['BF16', BFLOAT16],
  ])('in %s of every finite bit pattern are what the reference says', async (dtype, format) => {
    const patterns = Uint16Array.from({ length: 65536 }, (_, bits) => bits).filter(
      (bits) => (bits & 0x7fff) < format.infinity,
    );
    const gate = await readGate(dtype, bytesOf(patterns));
    expect(gate).toHaveLength(2 * format.infinity);
    expect(Float64Array.from(gate)).toEqual(Float64Array.from(patterns, (bits) => decodeHalf(bits, format)));
  });

  test('in F32 keep every bit', async () => {
    const numbers = Float32Array.of(1 / 3, -0, 1e-45, -3.4e38, 1.17e-38);
    expect(await readGate('F32', bytesOf(numbers))).toEqual([...numbers]);
  });

  test.each([
    ['F32', Float32Array.of(0, 1, Number.NaN), 'NaN'],
    ['F32', Float32Array.of(0, 1, Number.POSITIVE_INFINITY), 'Infinity'],
    ['F32', Float32Array.of(0, 1, Number.NEGATIVE_INFINITY), '-Infinity'],
    ['F16', Uint16Array.of(0, 1, 0x7c00), 'Infinity'],
    ['F16', Uint16Array.of(0, 1, 0xfc00), '-Infinity'],
    ['F16', Uint16Array.of(0, 1, 0x7c01), 'NaN'],
    ['BF16', Uint16Array.of(0, 1, 0x7f80), 'Infinity'],
    ['BF16', Uint16Array.of(0, 1, 0xff80), '-Infinity'],
    ['BF16', Uint16Array.of(0, 1, 0xffff), 'NaN'],
  ])('in %s of %p are not finite', (dtype, numbers, received) =>
    expectModelError(
      () => readGate(dtype, bytesOf(numbers)),
      /^g\.safetensors: expected finite numbers/,
      `tensor "model.layers.0.self_attn.gate" but received ${received} (at index 2)`,
    ),
  );

  test.each([1, 4, 12])('that lack %d bytes are refused', (missing) =>
    expectModelError(
      () => readGate('F32', bytesOf(Float32Array.of(1, 2, 3)), missing),
      /^g\.safetensors: expected 15 bytes/,
      `received ${15 - missing}`,
      'cut while it was read',
    ),
  );

  test('name the layer and the file at fault', () =>
    withModel({ ...options, shards: 2 }, async (files) => {
      const { gates } = findWeights(files.config, files.tensors);
      const bytes = await readFile(gates[1].fileName);
      bytes.writeFloatLE(Number.NaN, gates[1].begin + 4);
      await writeFile(gates[1].fileName, bytes);
      await expectModelError(
        () => readGates(gates, files.handles),
        `${gates[1].fileName}: `,
        '"model.layers.1.self_attn.gate"',
        'received NaN (at index 1)',
      );
    }));
});

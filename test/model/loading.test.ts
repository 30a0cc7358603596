import { mkdtempSync, rmSync } from 'node:fs';
import { copyFile, open, readFile, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type DType, loadModel, openDevice } from '../../lib';
import { readHeader } from '../../lib/model/safetensors';
import { DEVICE_ID } from '../support/device';
import { sizes } from '../support/sizes';
import { writeTinyModel } from '../support/tiny-model';

const folder = mkdtempSync(path.join(os.tmpdir(), 'infini-loading-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const options = { device: DEVICE_ID } as const;
const code = (name: string, text = '') =>
  expect.objectContaining({ code: name, message: expect.stringContaining(text) });

let made = 0;
async function tiny(dtype: DType = 'float32'): Promise<string> {
  const directory = path.join(folder, String(made++));
  await writeTinyModel(directory, { dtype, seed: 5 });
  return directory;
}

/** Overwrites one element of a tensor. */
async function poke(directory: string, tensor: string, element: number, bytes: Uint8Array): Promise<void> {
  const file = await open(path.join(directory, 'model.safetensors'), 'r+');
  const header = await readHeader(file, 'model.safetensors');
  const { begin } = header.get(tensor) as { begin: number };
  await file.write(bytes, 0, bytes.length, begin + element * bytes.length);
  await file.close();
}

const nan: Record<DType, Uint8Array> = {
  float32: new Uint8Array(Float32Array.of(Number.NaN).buffer),
  bfloat16: new Uint8Array(Uint16Array.of(0x7fc0).buffer),
  float16: new Uint8Array(Uint16Array.of(0xfc00).buffer), // -Infinity
};
const tensors = [
  'model.embed_tokens.weight',
  'model.layers.1.input_layernorm.weight',
  'model.layers.0.self_attn.q_proj.weight',
  'model.layers.1.self_attn.k_proj.weight',
  'model.layers.0.self_attn.v_proj.weight',
  'model.layers.1.self_attn.o_proj.weight',
  'model.layers.1.self_attn.gate',
  'model.layers.0.post_attention_layernorm.weight',
  'model.layers.1.mlp.gate_proj.weight',
  'model.layers.0.mlp.up_proj.weight',
  'model.layers.1.mlp.down_proj.weight',
  'model.norm.weight',
  'lm_head.weight',
];

test.each(tensors)('NaN or Infinity in %s is refused', async (tensor) => {
  for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
    const directory = await tiny(dtype);
    await poke(directory, tensor, 1, nan[dtype]);
    const says = 'model.safetensors: expected finite numbers';
    await expect(loadModel(directory, options)).rejects.toEqual(code('ERR_MODEL', says));
  }
});

test('every shortened file is refused', async () => {
  const directory = await tiny();
  const file = path.join(directory, 'model.safetensors');
  const bytes = await readFile(file);
  for (let share = 0; share < 1; share += 0.03) {
    await writeFile(file, bytes.subarray(0, Math.floor(share * bytes.length)));
    await expect(loadModel(directory, options)).rejects.toEqual(code('ERR_MODEL', 'model.safetensors'));
  }
});

test('a config that does not fit the weights is refused', async () => {
  for (const change of [
    { hidden_size: 16 },
    { num_hidden_layers: 3 },
    { num_hidden_layers: 1 },
    { vocab_size: 23 },
    { intermediate_size: 21 },
    { head_dim: 8 },
    { num_key_value_heads: 4 },
    { infini: { segment_length: 0, rule: 'delta' } },
    { infini: { segment_length: 8, rule: 'gamma' } },
    { rope_scaling: { rope_type: 'llama3', factor: 8 } },
  ]) {
    const directory = await tiny();
    const file = path.join(directory, 'config.json');
    const config = JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>;
    await writeFile(file, JSON.stringify({ ...config, ...change }));
    await expect(loadModel(directory, options)).rejects.toEqual(code('ERR_MODEL'));
  }
});

test('nothing is left behind by what was refused', async () => {
  const directory = await tiny();
  await poke(directory, 'lm_head.weight', 0, nan.float32);
  using device = openDevice(DEVICE_ID);
  const before = device.stats();
  for (let i = 0; i < 5; i++) {
    await expect(loadModel(directory, { device })).rejects.toEqual(code('ERR_MODEL'));
  }
  const after = device.stats();
  // Less: garbage of other tests.
  expect(after.weightBytes).toBeLessThanOrEqual(before.weightBytes);
  expect(after.streams).toBeLessThanOrEqual(before.streams);
});

test('activations that overflow are an error, and the session stays as it was', async () => {
  const directory = await tiny();
  const huge = new Uint8Array(Float32Array.of(3e38).buffer);
  const width = 12;
  for (let i = 0; i < width; i++) await poke(directory, 'model.embed_tokens.weight', 7 * width + i, huge);
  for (let i = 0; i < 20; i++) await poke(directory, 'model.layers.0.mlp.up_proj.weight', i, huge);
  using model = await loadModel(directory, options);
  using session = model.createSession();
  await session.feed([1, 2, 3]).catch(() => {});
  const tokens = session.tokens;
  const error = await session.feed([7, 7, 7]).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toEqual(code('ERR_NON_FINITE'));
  expect(session.tokens).toBe(tokens);
});

test('a logit beyond float32 is an error, and the session stays as it was', async () => {
  const directory = await tiny();
  const bytes = (x: number) => new Uint8Array(Float32Array.of(x).buffer);
  const width = 12;
  await poke(directory, 'model.norm.weight', 0, bytes(1000));
  for (let i = 0; i < width; i++)
    await poke(directory, 'lm_head.weight', 5 * width + i, bytes(i === 0 ? 3e38 : 0));
  using model = await loadModel(directory, options);
  using session = model.createSession();
  await expect(session.feed([1, 2, 3])).rejects.toEqual(code('ERR_NON_FINITE', 'output'));
  expect(session.tokens).toBe(0);
});

test('a tokenizer makes texts of it; a broken one is refused', async () => {
  const directory = await tiny();
  const json = path.join(__dirname, '../../models/passkey-linear/tokenizer.json');
  await copyFile(json, path.join(directory, 'tokenizer.json'));
  using model = await loadModel(directory, options);
  expect(model.encode('a b')).toHaveLength(3);
  expect(() => model.decode(model.encode('a b'))).toThrow(code('ERR_OUT_OF_RANGE')); // a vocabulary of 24
  using session = model.createSession();
  await expect(session.feed('é')).rejects.toEqual(code('ERR_OUT_OF_RANGE'));
  expect(session.tokens).toBe(0);
  await writeFile(path.join(directory, 'tokenizer.json'), '{"model": 3}');
  await expect(loadModel(directory, options)).rejects.toEqual(code('ERR_MODEL', 'tokenizer.json'));
});

test('models can be loaded side by side and while another works', async () => {
  const directories = await Promise.all([tiny(), tiny('bfloat16'), tiny('float16')]);
  const models = await Promise.all(directories.map((directory) => loadModel(directory, options)));
  const sessions = models.map((model) => model.createSession());
  const feeding = Promise.all(
    sessions.map((session) => session.feed(new Int32Array(sizes.modelFeed).fill(3))),
  );
  using other = await loadModel(directories[0] as string, options);
  await feeding;
  expect(sessions.map((session) => session.tokens)).toEqual(Array(3).fill(sizes.modelFeed));
  expect(other.gates).toEqual(models[0]?.gates);
  for (const model of models) model.close();
});

import { readFileSync } from 'node:fs';
import path from 'node:path';
import { EmbeddingMemory } from '../../examples/embedding/memory';
import type { Device } from '../../lib';
import { openTestDevice } from '../support/device';
import { Rng } from '../support/rng';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

function unit(vector: Float32Array): Float32Array {
  const length = Math.hypot(...vector);
  return vector.map((x) => x / length);
}

const embedding = (d: number, rng: Rng) => unit(Float32Array.from({ length: d }, () => rng.normal()));
const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, x, i) => sum + x * b[i], 0);

interface Pair {
  key: Float32Array;
  value: Float32Array;
}

const makePairs = (n: number, d: number, rng: Rng): Pair[] =>
  Array.from({ length: n }, () => ({ key: embedding(d, rng), value: embedding(d, rng) }));

async function written(pairs: readonly Pair[], d: number): Promise<EmbeddingMemory> {
  const memory = new EmbeddingMemory(device, d);
  await Promise.all(pairs.map(({ key, value }) => memory.write(key, value)));
  return memory;
}

/** The share of pairs whose value is the nearest to what is read with the key. */
async function recall(
  memory: EmbeddingMemory,
  pairs: readonly Pair[],
  ask = (key: Float32Array) => key,
): Promise<number> {
  let right = 0;
  for (const { key, value } of pairs) {
    const found = await memory.read(ask(key));
    if (pairs.every((other) => dot(found, other.value) <= dot(found, value))) right++;
  }
  return right / pairs.length;
}

test.each([
  { d: 64, least: 0.85 },
  { d: 128, least: 0.97 },
  { d: 256, least: 0.99 },
])('half as many pairs as the $d dimensions are found by their keys', async ({ d, least }) => {
  const pairs = makePairs(d / 2, d, new Rng(d));
  expect(await recall(await written(pairs, d), pairs)).toBeGreaterThanOrEqual(least);
});

test('as many pairs as dimensions blur a little, and a key that is only near finds its pair', async () => {
  const d = 128;
  const rng = new Rng(1);
  const pairs = makePairs(d, d, rng);
  const memory = await written(pairs, d);
  expect(await recall(memory, pairs)).toBeGreaterThan(0.9);
  const near = (key: Float32Array) => {
    const noise = embedding(d, rng);
    return unit(key.map((x, i) => x + 0.3 * noise[i]));
  };
  expect(await recall(memory, pairs, near)).toBeGreaterThan(0.85);
});

test('what is written to a key again takes the place of what it had', async () => {
  const d = 128;
  const rng = new Rng(2);
  const old = makePairs(32, d, rng);
  const memory = await written(old, d);
  const pairs = old.map(({ key }) => ({ key, value: embedding(d, rng) }));
  for (const { key, value } of pairs) await memory.write(key, value);
  for (const [i, { key, value }] of pairs.entries()) {
    const found = await memory.read(key);
    expect(dot(found, value)).toBeGreaterThan(dot(found, old[i].value));
  }
});

test('an empty memory answers with zeros, a vector of another length is refused and changes nothing', async () => {
  const memory = new EmbeddingMemory(device, 16);
  const key = embedding(16, new Rng(3));
  expect(await memory.read(key)).toEqual(new Float32Array(16));
  await expect(memory.write(key, new Float32Array(15))).rejects.toMatchObject({ code: 'ERR_SHAPE' });
  expect(await memory.read(key)).toEqual(new Float32Array(16));
});

test('it is 40 lines', () => {
  const file = path.join(__dirname, '../../examples/embedding/memory.ts');
  expect(readFileSync(file, 'utf8').trimEnd().split('\n').length).toBeLessThanOrEqual(40);
});

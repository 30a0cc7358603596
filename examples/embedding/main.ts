// Writes pairs of random embeddings, and looks for each by its key: `npm run example:embedding`.
import { openDevice } from 'infini-stream';
import { EmbeddingMemory } from './memory';

const DIMENSION = 128;

function randomEmbedding(): Float32Array {
  const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  const vector = Float32Array.from({ length: DIMENSION }, normal);
  const length = Math.hypot(...vector);
  return vector.map((x) => x / length);
}

const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, x, i) => sum + x * (b[i] as number), 0);

async function main() {
  const device = openDevice();
  for (const size of [32, 64, 128, 256]) {
    const memory = new EmbeddingMemory(device, DIMENSION);
    const pairs = Array.from({ length: size }, () => ({ key: randomEmbedding(), value: randomEmbedding() }));
    for (const { key, value } of pairs) await memory.write(key, value);
    let right = 0;
    for (const { key, value } of pairs) {
      const found = await memory.read(key);
      if (pairs.every((other) => dot(found, other.value) <= dot(found, value))) right++;
    }
    console.log(`${size} pairs of dimension ${DIMENSION}: ${right} found`);
    memory.close();
  }
  device.close();
}

main();

// Runs the same streams again and again on a device and compares every bit of outputs and memories: a race that the
// tests' tolerances forgive shows here.
//   node scripts/gpu/repeats.cjs DEVICE TIMES

const { createHash } = require('node:crypto');
const path = require('node:path');
const { openDevice } = require(path.join(__dirname, '../..'));

const configurations = [
  { heads: 8, headDim: 64, segmentLength: 128, dtype: 'bfloat16' },
  { heads: 8, kvHeads: 2, headDim: 128, segmentLength: 512, dtype: 'bfloat16', rope: { theta: 10_000 } },
  { heads: 4, headDim: 128, segmentLength: 96, dtype: 'float16', rule: 'linear' },
  { heads: 4, kvHeads: 1, headDim: 64, valueDim: 40, segmentLength: 200, dtype: 'float32' },
  { heads: 2, headDim: 256, segmentLength: 64, dtype: 'float32', emptyRead: 'local' },
];

/** The same noise each time; 16-bit elements stay near 1, where bfloat16 and float16 are both finite. */
function noise(length, dtype, seed) {
  let state = seed;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  if (dtype === 'float32') return Float32Array.from({ length }, () => 4 * next() - 2);
  const one = dtype === 'bfloat16' ? 0x3f80 : 0x3c00;
  return Uint16Array.from(
    { length },
    () => one - 64 + Math.floor(128 * next()) + (next() < 0.5 ? 0x8000 : 0),
  );
}

function inputs(config, tokens, seed) {
  const { heads, kvHeads = heads, headDim, valueDim = headDim, dtype } = config;
  return {
    q: noise(tokens * heads * headDim, dtype, seed),
    k: noise(tokens * kvHeads * headDim, dtype, seed + 1),
    v: noise(tokens * kvHeads * valueDim, dtype, seed + 2),
  };
}

/** Several segments in one call, single tokens over a border, and the memory. */
async function digest(device, config) {
  const stream = device.createStream(config);
  const hash = createHash('sha256');
  const feed = async (tokens, seed) => hash.update(await stream.attend(inputs(config, tokens, seed)));
  await feed(4 * config.segmentLength - 5, 1);
  for (let i = 0; i < 8; i++) await feed(1, 100 + i);
  const { matrix, normalizer } = stream.memory();
  stream.close();
  return hash.update(matrix).update(normalizer).digest('hex');
}

/** All streams at once every other time: their calls share launches then, which must not show. */
async function round(device, together) {
  if (together) return Promise.all(configurations.map((config) => digest(device, config)));
  const digests = [];
  for (const config of configurations) digests.push(await digest(device, config));
  return digests;
}

async function main(id, times) {
  const device = openDevice(id);
  const first = await round(device, false);
  const failures = new Set();
  for (let i = 1; i < times; i++) {
    const digests = await round(device, i % 2 === 1);
    digests.forEach((digest, at) => {
      if (digest !== first[at]) failures.add(`repeat ${i} of ${JSON.stringify(configurations[at])} differs`);
    });
  }
  device.close();
  for (const failure of failures) console.log(failure);
  console.log(`${configurations.length} streams, ${times} times each`);
  process.exitCode = failures.size === 0 ? 0 : 1;
}

main(process.argv[2], Number(process.argv[3]));

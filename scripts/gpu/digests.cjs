// Everything that a device computes for a few configurations, as one hash each.

const { createHash } = require('node:crypto');

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

/** What each digest feeds, made once. */
const feeds = new Map(
  configurations.map((config) => [
    config,
    {
      prompt: inputs(config, 4 * config.segmentLength - 5, 1),
      tokens: Array.from({ length: 8 }, (_, i) => inputs(config, 1, 100 + i)),
      rows: inputs(config, 3, 200), // one for each stream of the batch
      queries: { q: inputs(config, 70, 300).q },
    },
  ]),
);

/**
 * Several segments in one call, single tokens over a border, a retrieval, a prepared batch of streams at three
 * positions (the first step is launched, the second captured as a graph, which the third runs again; one of the
 * streams crosses a border), and the memories.
 */
async function digest(device, config) {
  const { prompt, tokens, rows, queries } = feeds.get(config);
  const hash = createHash('sha256');
  const stream = device.createStream(config);
  hash.update(await stream.attend(prompt));
  const early = stream.fork();
  for (const token of tokens) hash.update(await stream.attend(token));
  hash.update(await stream.retrieve(queries));

  const streams = [stream, early, device.createStream(config)];
  const batch = device.createBatch(streams);
  for (let i = 0; i < 6; i++) hash.update(await batch.step(rows));
  for (const each of streams) {
    const { matrix, normalizer } = each.memory();
    hash.update(matrix).update(normalizer);
    each.close();
  }
  return hash.digest('hex');
}

module.exports = { configurations, digest };

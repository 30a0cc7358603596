import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { loadModel, type Model } from '../../lib';
import { ReferenceDecoder } from '../reference/decoder';
import { DEVICE_ID } from '../support/device';
import { Rng } from '../support/rng';
import { sizes } from '../support/sizes';
import { type TinyModel, type TinyModelOptions, writeTinyModel } from '../support/tiny-model';

const folder = mkdtempSync(path.join(os.tmpdir(), 'infini-model-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let made = 0;
async function tiny(options: TinyModelOptions): Promise<{ written: TinyModel; model: Model }> {
  const directory = path.join(folder, String(made++));
  const written = await writeTinyModel(directory, options);
  return { written, model: await loadModel(directory, { device: DEVICE_ID }) };
}

const drawTokens = (rng: Rng, count: number, vocabulary: number): Int32Array =>
  Int32Array.from({ length: count }, () => Math.floor(rng.uniform() * vocabulary));

/** The largest difference, in units of the largest wanted number. */
function worst(actual: ArrayLike<number>, wanted: ArrayLike<number>): number {
  expect(actual.length).toBe(wanted.length);
  let [difference, largest] = [0, 0];
  for (let i = 0; i < wanted.length; i++) {
    difference = Math.max(difference, Math.abs((actual[i] as number) - (wanted[i] as number)));
    largest = Math.max(largest, Math.abs(wanted[i] as number));
  }
  expect(largest).toBeGreaterThan(0.01);
  return Number.isNaN(difference) ? Number.NaN : difference / Math.max(1, largest);
}

const cases: [string, TinyModelOptions][] = [
  ['linear rule, SwiGLU', { rule: 'linear', seed: 11 }],
  ['delta rule, SwiGLU', { rule: 'delta', seed: 12 }],
  ['emptyRead local', { emptyRead: 'local', seed: 13 }],
  ['tied head', { tied: true, seed: 14 }],
  ['GELU without a gate', { gated: false, activation: 'gelu', seed: 15 }],
  ['GELU by tanh, gated', { activation: 'gelu_tanh', seed: 16 }],
  ['bfloat16 weights', { dtype: 'bfloat16', seed: 17 }],
  ['float16 weights', { dtype: 'float16', seed: 18 }],
  ['as many key-value heads as heads', { heads: 3, kvHeads: 3, headDim: 6, width: 18, seed: 19 }],
  ['one key-value head', { heads: 6, kvHeads: 1, headDim: 2, width: 7, seed: 20 }],
  ['odd widths', { width: 13, mlpWidth: 31, vocabulary: 37, heads: 2, kvHeads: 1, headDim: 10, seed: 21 }],
  [
    'wider than a panel',
    { width: 72, mlpWidth: 150, vocabulary: 131, heads: 4, kvHeads: 2, headDim: 18, seed: 22 },
  ],
  ['an epsilon that matters', { normEpsilon: 0.3, seed: 24 }],
  ['rotary positions of another base', { ropeTheta: 50, segmentLength: 16, seed: 25 }],
  ['three layers, segments of one token', { layers: 3, segmentLength: 1, seed: 23 }],
];

test.each(cases)('logits agree with float64 to 1e-4: %s', async (_, options) => {
  const { written, model } = await tiny(options);
  using session = model.createSession();
  const tokens = drawTokens(new Rng(options.seed as number), 45, model.config.vocabulary);
  const reference = new ReferenceDecoder(written);
  let at = 0;
  for (const count of [1, 2, 12, 1, 16, 13]) {
    const part = tokens.subarray(at, at + count);
    at += count;
    let wanted = new Float64Array(0);
    for (const token of part) wanted = reference.next(token) as Float64Array<ArrayBuffer>;
    await session.feed(part);
    expect(worst(session.logits(), wanted)).toBeLessThan(1e-4);
  }
  expect(session.tokens).toBe(45);
  model.close();
});

test('a long prefill agrees with the reference', async () => {
  const { written, model } = await tiny({ segmentLength: 32, rule: 'delta', seed: 31 });
  using session = model.createSession();
  const tokens = drawTokens(new Rng(31), sizes.modelPrefill, model.config.vocabulary);
  const reference = new ReferenceDecoder(written);
  let wanted = new Float64Array(0);
  for (const token of tokens) wanted = reference.next(token) as Float64Array<ArrayBuffer>;
  await session.feed(tokens);
  expect(worst(session.logits(), wanted)).toBeLessThan(1e-4);
  model.close();
});

test('how tokens are split among calls changes nothing', async () => {
  const { model } = await tiny({ segmentLength: 16, layers: 2, width: 40, mlpWidth: 70, seed: 41 });
  const tokens = drawTokens(new Rng(41), sizes.modelSplit, model.config.vocabulary);
  const whole = model.createSession();
  await whole.feed(tokens);
  const single = model.createSession();
  for (const token of tokens) await single.feed([token]);
  const ragged = model.createSession();
  for (let at = 0, i = 0; at < tokens.length; i++) {
    const count = [1, 100, 15, 16, 17, 3][i % 6] as number;
    await ragged.feed(tokens.subarray(at, at + count));
    at += count;
  }
  for (const other of [single, ragged]) {
    if (DEVICE_ID === 'cpu') expect(other.logits()).toEqual(whole.logits());
    else expect(worst(other.logits(), whole.logits())).toBeLessThan(1e-5);
    expect(other.tokens).toBe(sizes.modelSplit);
  }
  model.close();
});

test('sessions fed and stepped together are as if each were alone', async () => {
  const { model } = await tiny({ segmentLength: 8, width: 24, seed: 51 });
  const rng = new Rng(51);
  const inputs = [37, 1, 8, 90, 64].map((count) => drawTokens(rng, count, model.config.vocabulary));
  const alone = await Promise.all(
    inputs.map(async (input) => {
      const session = model.createSession();
      await session.feed(input);
      return session;
    }),
  );
  const together = inputs.map(() => model.createSession());
  await model.feedAll(together.map((session, i) => ({ session, input: inputs[i] as Int32Array })));
  const same = (a: Float32Array, b: Float32Array) =>
    DEVICE_ID === 'cpu' ? expect(a).toEqual(b) : expect(worst(a, b)).toBeLessThan(1e-5);
  for (const [i, session] of together.entries()) {
    expect(session.tokens).toBe(inputs[i]?.length);
    same(session.logits(), (alone[i] as (typeof alone)[0]).logits());
  }
  const options = { maxTokens: 30, temperature: 0.7, topK: 9, seed: 5 };
  const texts = await model.generateAll(together, options);
  for (const [i, session] of alone.entries()) {
    const { tokens, finish } = await session.generate({ ...options, seed: 5 + i });
    expect(finish).toBe('length');
    expect(tokens.length).toBe(30);
    if (DEVICE_ID === 'cpu') expect(texts[i]?.tokens).toEqual(tokens);
    expect(together[i]?.tokens).toBe(session.tokens);
  }
  model.close();
});

test('token by token generation equals prefill of the same tokens', async () => {
  const { written, model } = await tiny({ segmentLength: 8, seed: 61 });
  const prompt = drawTokens(new Rng(61), 21, model.config.vocabulary);
  const session = model.createSession();
  await session.feed(prompt);
  const { tokens } = await session.generate({ maxTokens: 40 });
  const reference = new ReferenceDecoder(written);
  let wanted = new Float64Array(0);
  for (const token of [...prompt, ...tokens]) wanted = reference.next(token) as Float64Array<ArrayBuffer>;
  expect(worst(session.logits(), wanted)).toBeLessThan(1e-4);
  const prefilled = model.createSession();
  await prefilled.feed([...prompt, ...tokens]);
  if (DEVICE_ID === 'cpu') expect(prefilled.logits()).toEqual(session.logits());
  else expect(worst(prefilled.logits(), session.logits())).toBeLessThan(1e-5);
  model.close();
});

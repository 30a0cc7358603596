import type { Device, StreamConfig } from '../../lib';
import { emulated, openTestDevice } from '../support/device';
import { expectReject } from '../support/failures';
import { dataOf, makeInput } from '../support/inputs';
import { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { sizes } from '../support/sizes';
import { sealed, takeApart } from './files';
import { accidents, malice, type Spoil } from './spoil';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

async function snapshotAfter(tokens: number, config: StreamConfig): Promise<Uint8Array> {
  using stream = device.createStream(config);
  if (tokens > 0) stream.attendSync(dataOf(makeInput(stream.config, tokens, new Rng(tokens))));
  return await stream.snapshot();
}

const small = { heads: 2, kvHeads: 1, headDim: 4, valueDim: 3, segmentLength: 6 };
const rope = { theta: 1e4 };

/** With and without what is open or absorbed. */
const makeSnapshots = () =>
  Promise.all([
    snapshotAfter(0, small),
    snapshotAfter(4, { ...small, dtype: 'float16' }),
    snapshotAfter(16, { ...small, rule: 'linear', gate: [0.1, -1 / 3], rope }),
    snapshotAfter(12, { ...small, dtype: 'bfloat16', scale: 0.3 }),
    snapshotAfter(23, { ...small, kvHeads: 2, dtype: 'bfloat16', emptyRead: 'local' }),
  ]);

/**
 * Restores and says why it could not be. What can be restored is the whole state that the file says and no other: its
 * snapshot is that file.
 */
async function outcomeOf(bytes: Buffer): Promise<string> {
  try {
    using stream = await device.restore(bytes);
    if (!bytes.equals(await stream.snapshot())) throw new Error('restored another state than the file has');
    return 'restored';
  } catch (error) {
    const { code, message, name } = error as Error & { code?: string };
    if (code === 'ERR_SNAPSHOT' && name === 'Error' && /^Expected .{10,400}$/s.test(message)) return message;
    throw error;
  }
}

async function spoilAll(all: Record<string, Spoil>, count: number, rng: Rng): Promise<Map<string, string[]>> {
  const snapshots = await makeSnapshots();
  const outcomes = new Map<string, string[]>();
  const { streams } = device.stats();
  const names = Object.keys(all);
  for (let i = 0; i < count; i++) {
    const name = names[i % names.length];
    const bytes = rng.pick(snapshots);
    const spoiled = all[name](bytes, rng);
    if (spoiled === undefined || spoiled.equals(bytes)) continue;
    try {
      outcomes.set(name, [...(outcomes.get(name) ?? []), await outcomeOf(spoiled)]);
    } catch (cause) {
      throw new Error(`of a file ${name}: ${cause} in ${spoiled.toString('latin1', 0, 1500)}`, { cause });
    }
  }
  expect(device.stats().streams).toBeLessThanOrEqual(streams);
  expect([...outcomes.values()].flat().length).toBeGreaterThan(0.8 * count); // the rest had nothing to change
  return outcomes;
}

seededTest('no accident goes unnoticed', async (rng) => {
  const outcomes = await spoilAll(accidents, sizes.spoiledFiles * 0.4, rng);
  expect([...outcomes.keys()].sort()).toEqual(Object.keys(accidents).sort());
  for (const [name, all] of outcomes) expect([name, all.includes('restored')]).toEqual([name, false]);
  const said = [...outcomes.values()].flat().join('\n');
  expect(said).toMatch(/it is damaged/);
  expect(said).toMatch(/it is truncated/);
});

/** What of the malice is no lie: another state, and as good as any. */
const truthful = [
  'with another number of tokens',
  'with a part of its configuration changed',
  'with another memory',
  'with another normalizer',
  'with other open tokens',
];

seededTest('what a right checksum hides is found, or is another state in full', async (rng) => {
  const outcomes = await spoilAll(malice, sizes.spoiledFiles * 0.6, rng);
  const names = Object.keys(malice).filter((name) => name !== 'that are only resealed');
  expect([...outcomes.keys()].sort()).toEqual(names.sort());
  for (const [name, all] of outcomes) {
    if (!truthful.includes(name)) expect([name, all.includes('restored')]).toEqual([name, false]);
    if (/memory|normalizer$|open tokens/.test(name))
      expect([name, all.includes('restored')]).toEqual([name, true]);
  }
  const said = [...outcomes.values()].flat().join('\n');
  const checks = [
    /each name once in .* twice/,
    /a known type/,
    /tensors overlap|belong to no tensor/,
    /64 hexadecimal digits in their place/,
    /the header that version 1 has for this state/,
    /version 1, which infini-stream/,
    /"format" of the metadata/,
    /"kind" of the metadata/,
    /only the keys .* in the metadata/,
    /only the keys .* in "config"/,
    /only tensors of the state/,
    /tensor ".*" .* but received none/,
    /the dtype of tensor/,
    /the shape of tensor/,
    /"tokens" of the metadata/,
    /a JSON object/,
    /the one text that a whole configuration has/,
    /"dtype" of the configuration/,
    /"gate" of the configuration/,
    /finite numbers in normalizer/,
    /finite numbers in matrix/,
    /finite numbers in keys/,
    /finite numbers in values/,
    /no number below 0 in normalizer/,
    /an empty (normalizer|matrix) before the first segment's end/,
  ];
  if (!emulated) expect(checks.filter((check) => !check.test(said))).toEqual([]); // fewer files there
});

test('each bit of a file is covered', async () => {
  const bytes = await snapshotAfter(4, { heads: 1, headDim: 1, segmentLength: 3 });
  const count = 8 * bytes.length;
  for (let bit = 0; bit < count; bit += emulated ? 37 : 1) {
    const spoiled = Buffer.from(bytes);
    spoiled[bit >> 3] ^= 1 << (bit & 7);
    if ((await outcomeOf(spoiled)) === 'restored') throw new Error(`bit ${bit} of ${count} may be flipped`);
  }
});

test('each length but its own is refused', async () => {
  const bytes = Buffer.from(await snapshotAfter(4, { heads: 1, headDim: 1, segmentLength: 3 }));
  expect(await outcomeOf(bytes)).toBe('restored');
  for (let length = 0; length < bytes.length; length++) {
    const outcome = await outcomeOf(bytes.subarray(0, length));
    if (outcome === 'restored') throw new Error(`a file cut to ${length} bytes was taken`);
  }
});

describe('the message says', () => {
  const edit = async (from: string, to: string) => {
    const { header, data } = takeApart(await snapshotAfter(from.includes('16') ? 16 : 4, small));
    expect(header.replace(from, to)).not.toBe(header);
    return sealed(header.replace(from, to), data);
  };
  test.each([
    [
      '"version":"1"',
      '"version":"2"',
      [/version 1, which infini-stream \S+ reads/, "received '2'", /written by infini-stream "/],
    ],
    ['"format":"infini-stream"', '"format":"pt"', ['\'infini-stream\' for "format"', "'pt'", 'no snapshot']],
    ['"tokens":"4"', '"tokens":"5"', ['[5, 1, 4]', 'shape of tensor "keys"', '[4, 1, 4]']],
    ['"tokens":"4"', '"tokens":"-4"', ['integer from 0 to 2^53 - 1', '"tokens"', "'-4'"]],
    ['"tokens":"16"', '"tokens":"4"', ['empty normalizer', "before the first segment's end"]],
    ['\\"delta\\"', '\\"hebb\\"', ['rule', 'hebb']],
    ['\\"heads\\":2', '\\"heads\\":4', ['4', 'gate']],
    ['\\"heads\\":2', '\\"heads\\":2000', ['heads', '2000']],
  ] as [string, string, (string | RegExp)[]][])('what is wrong with %s as %s', async (from, to, says) => {
    const spoiled = await edit(from, to);
    await expectReject(() => device.restore(spoiled), { code: 'ERR_SNAPSHOT', says });
  });
});

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { Device, DType } from '../../lib';
import { readHeader } from '../../lib/model/safetensors';
import { openTestDevice } from '../support/device';
import { dataOf, makeInput } from '../support/inputs';
import { Rng } from '../support/rng';
import { bytesOf } from '../support/tensors';
import { checksumOf, takeApart } from './files';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const shape = { heads: 4, kvHeads: 2, headDim: 6, valueDim: 5, segmentLength: 8 } as const;
const stored = { float32: 'F32', bfloat16: 'BF16', float16: 'F16' };

describe.each(['float32', 'bfloat16', 'float16'] as DType[])('the file of a %s stream', (dtype) => {
  const config = {
    ...{ ...shape, dtype, rule: 'linear' as const, gate: [0.1, -3, 1 / 3, 1e-300], scale: 0.1 + 0.2 },
    rope: { theta: 12345.678901234567 },
    emptyRead: 'local',
  } as const;
  const input = makeInput({ ...shape, dtype }, 29, new Rng(7)); // 3 segments and 5 tokens

  test('holds the memory, the open tokens as they were given, and the configuration', async () => {
    using stream = device.createStream(config);
    await stream.attend(dataOf(input));
    const { metadata, tensors, dataOf: tensor } = takeApart(await stream.snapshot());
    const { matrix, normalizer } = stream.memory();
    expect(tensors).toEqual({
      normalizer: { dtype: 'F64', shape: [2, 6], data_offsets: [0, 96] },
      matrix: { dtype: 'F32', shape: [2, 6, 5], data_offsets: [96, 336] },
      keys: { dtype: stored[dtype], shape: [5, 2, 6], data_offsets: [336, expect.any(Number)] },
      values: { dtype: stored[dtype], shape: [5, 2, 5], data_offsets: expect.any(Array) },
    });
    expect(tensor('normalizer').equals(bytesOf(normalizer))).toBe(true);
    expect(tensor('matrix').equals(bytesOf(matrix))).toBe(true);
    expect(matrix.some((x) => x !== 0)).toBe(true);
    expect(tensor('keys').equals(bytesOf(input.k.data.subarray(24 * 12)))).toBe(true);
    expect(tensor('values').equals(bytesOf(input.v.data.subarray(24 * 10)))).toBe(true);
    expect(metadata).toEqual({
      format: 'infini-stream',
      version: '1',
      sha256: expect.stringMatching(/^[\da-f]{64}$/),
      kind: 'stream',
      library: expect.stringMatching(/^\d+\.\d+\.\d+/),
      tokens: '29',
      config: expect.any(String),
    });
    expect(JSON.parse(metadata.config)).toEqual(stream.config);
    expect(stream.config).toMatchObject(config);
  });

  test('is a safetensors file for other readers, its data at a multiple of 8', async () => {
    using stream = device.createStream(config);
    await stream.attend(dataOf(input));
    const folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-'));
    try {
      const file = path.join(folder, 'x.safetensors');
      const bytes = await stream.snapshot();
      writeFileSync(file, bytes);
      const handle = await open(file);
      const tensors = await readHeader(handle, file).finally(() => handle.close());
      expect([...tensors.keys()]).toEqual(['normalizer', 'matrix', 'keys', 'values']);
      expect((tensors.get('normalizer')?.begin ?? 1) % 8).toBe(0);
      expect(tensors.get('values')?.end).toBe(bytes.length);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('has a checksum over everything else in it', async () => {
    using stream = device.createStream(config);
    await stream.attend(dataOf(input));
    const bytes = await stream.snapshot();
    const { metadata } = takeApart(bytes);
    expect(metadata.sha256).toBe(checksumOf(bytes));
  });
});

test('an empty stream has tensors of no tokens, and zeros', async () => {
  using stream = device.createStream(shape);
  const { metadata, tensors, data } = takeApart(await stream.snapshot());
  expect(tensors.keys).toEqual({ dtype: 'F32', shape: [0, 2, 6], data_offsets: [336, 336] });
  expect(tensors.values).toEqual({ dtype: 'F32', shape: [0, 2, 5], data_offsets: [336, 336] });
  expect(data.equals(Buffer.alloc(336))).toBe(true);
  expect(metadata.tokens).toBe('0');
});

test('a state has one file: twice, from a fork, from a restored stream and from another device', async () => {
  using stream = device.createStream({ ...shape, gate: [1, 2, 3, 4] });
  const input = makeInput({ ...shape, dtype: 'float32' }, 21, new Rng(3));
  await stream.attend(dataOf(input));
  const bytes = Buffer.from(await stream.snapshot());
  using fork = stream.fork();
  using restored = await device.restore(bytes);
  using other = openTestDevice({ threads: 1 });
  for (const one of [stream, fork, restored, await other.restore(bytes)])
    expect(bytes.equals(await one.snapshot())).toBe(true);
});

test('a file of several megabytes has its checksum too, and the event loop goes on meanwhile', async () => {
  using stream = device.createStream({ heads: 64, headDim: 128, segmentLength: 4 }); // 4 MiB of zeros
  const bytes = await stream.snapshot();
  expect(bytes.length).toBeGreaterThan(4 * 2 ** 20);
  expect(takeApart(bytes).metadata.sha256).toBe(checksumOf(bytes));
  let turns = 0;
  let immediate = setImmediate(function turn() {
    turns++;
    immediate = setImmediate(turn);
  });
  using restored = await device.restore(bytes);
  clearImmediate(immediate);
  expect(turns).toBeGreaterThanOrEqual(4); // one after each MiB
  expect(restored.config).toEqual(stream.config);
});

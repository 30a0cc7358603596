import { Batch, type Device, type StreamConfig } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject, expectThrow } from '../support/failures';
import { busyStream } from '../support/front';
import { dataOf, type MadeInput, makeInput, tokensOf } from '../support/inputs';
import { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { sizes } from '../support/sizes';
import { stateOf } from '../support/state';
import { bytesOf, DTYPES, poisoned } from '../support/tensors';

/** device.createBatch: streams that step together, one token each, all or nothing. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const small = { heads: 1, headDim: 2, segmentLength: 4 };
const newStreams = (count: number, config: StreamConfig = small) =>
  Array.from({ length: count }, () => device.createStream(config));
const packed = (count: number, rng = new Rng(1), config: StreamConfig = small): MadeInput =>
  makeInput({ ...device.createStream(config).config }, count, rng);
const closeAll = (...closable: { close(): void }[]) => {
  for (const one of closable) one.close();
};

const shapes: StreamConfig[] = [
  { heads: 4, kvHeads: 2, headDim: 6, valueDim: 5, segmentLength: 8 },
  { heads: 2, headDim: 16, segmentLength: 5, rule: 'linear', rope: { theta: 100 } },
  { heads: 6, kvHeads: 1, headDim: 33, valueDim: 7, segmentLength: 1, emptyRead: 'local', gate: 1 },
];

describe.each(DTYPES)('steps of %s streams', (dtype) => {
  test.each([1, 2, 5, sizes.batchStreams])(
    'give the bits of the same tokens given alone, to %i of them',
    async (count) => {
      const rng = new Rng(count);
      for (const shape of shapes) {
        const streams = newStreams(count, { ...shape, dtype });
        // At different places of a segment, so that their borders fall into different steps.
        for (const [i, stream] of streams.entries())
          if (i > 0) stream.attendSync(dataOf(makeInput(stream.config, i, rng)));
        const twins = streams.map((stream) => stream.fork());
        const { heads, valueDim, segmentLength } = streams[0].config;
        const batch = device.createBatch(streams);
        const width = heads * valueDim;
        for (let step = 0; step < 2 * segmentLength + 3; step++) {
          const input = makeInput(streams[0].config, count, rng);
          const wanted = twins.map((twin, i) => bytesOf(twin.attendSync(dataOf(tokensOf(input, i, i + 1)))));
          const how = step % 4;
          const array = poisoned(dtype, count * width);
          const tensor = device.tensor([count, heads, valueDim], dtype, array);
          const given = dataOf(input);
          const q = device.tensor([given.q.length], dtype, given.q);
          const result =
            how === 0
              ? batch.stepSync({ ...given, out: array })
              : how === 1
                ? await batch.step({ ...given, out: array })
                : how === 2
                  ? await batch.stepSync({ ...given, q, out: tensor }).read()
                  : await (await batch.step({ ...given, q, out: tensor })).read();
          if (how < 2) expect(result).toBe(array);
          expect(bytesOf(result).equals(Buffer.concat(wanted))).toBe(true);
          closeAll(tensor, q);
        }
        expect(streams.map(stateOf)).toEqual(twins.map(stateOf));
        closeAll(batch, ...streams, ...twins);
      }
    },
  );
});

test('without out the result is a new array', async () => {
  const batch = device.createBatch(newStreams(3));
  const input = dataOf(packed(3));
  const [first, second] = [batch.stepSync(input), await batch.step(input)];
  expect([first.length, second.length]).toEqual([6, 6]);
  expect(first.buffer).not.toBe(second.buffer);
  closeAll(...batch.streams);
});

test('streams that absorb long segments in the same step get the same bits, and give their scratch back', () => {
  const segmentLength = sizes.batchSegment;
  const config = { heads: 4, headDim: 8, valueDim: 128, segmentLength };
  const [first] = newStreams(1, config);
  const rng = new Rng(3);
  first.attendSync(dataOf(makeInput(first.config, segmentLength - 1, rng)));
  const streams = [first, ...Array.from({ length: 9 }, () => first.fork())];
  const twins = streams.map((stream) => stream.fork());
  const before = device.stats();
  const batch = device.createBatch(streams);
  const input = makeInput(first.config, 10, rng);
  const output = bytesOf(batch.stepSync(dataOf(input)));
  const wanted = twins.map((twin, i) => bytesOf(twin.attendSync(dataOf(tokensOf(input, i, i + 1)))));
  expect(output.equals(Buffer.concat(wanted))).toBe(true);
  for (const [i, stream] of streams.entries()) {
    expect(bytesOf(stream.memory().matrix).equals(bytesOf(twins[i].memory().matrix))).toBe(true);
    expect(stream.segments).toBe(1);
  }
  expect(device.stats().streamBytes).toBe(before.streamBytes);
  expect(device.stats().stagingBytes).toBe(before.stagingBytes);
  closeAll(batch, ...streams, ...twins);
});

test('it says what it is made of', () => {
  const streams = newStreams(3);
  const batch = device.createBatch(streams);
  expect(batch).toBeInstanceOf(Batch);
  expect(batch.streams).toEqual(streams);
  expect(batch.streams).not.toBe(streams);
  expect(Object.isFrozen(batch.streams)).toBe(true);
  expect([batch.size, batch.closed]).toEqual([3, false]);
  closeAll(batch, ...streams);
});

describe('all or nothing', () => {
  const config = { heads: 2, headDim: 4, segmentLength: 3 };

  seededTest('a bad number in one stream keeps every stream as it was', async (rng) => {
    for (const bad of [0, 2, 6]) {
      for (const name of ['q', 'k', 'v'] as const) {
        const streams = newStreams(7, config);
        for (const [i, stream] of streams.entries())
          stream.attendSync(dataOf(makeInput(stream.config, i + 1, rng)));
        const states = streams.map(stateOf);
        const batch = device.createBatch(streams);
        const input = dataOf(makeInput(streams[0].config, 7, rng));
        input[name][bad * 8 + 3] = Number.POSITIVE_INFINITY;
        if (bad < 6) input.q[6 * 8] = Number.NaN; // a later stream's is not named
        const out = poisoned('float32', 56).fill(5);
        const failure = { code: 'ERR_NON_FINITE', tensor: name, token: 0, says: [`Stream ${bad} `] };
        for (const tensor of [undefined, device.tensor([7, 2, 4], 'float32', out)]) {
          expectThrow(() => batch.stepSync({ ...input, out: tensor ?? out }), failure);
          await expectReject(() => batch.step({ ...input, out: tensor ?? out }), failure);
          expect(await batch.step(input).catch(({ stream }) => stream)).toBe(bad);
          expect((tensor ? await tensor.read() : out).every((x) => x === 5)).toBe(true);
        }
        expect(streams.map(stateOf)).toEqual(states);
        closeAll(batch, ...streams);
      }
    }
  });

  test('so does an overflow of one stream’s memory, or of its output', async () => {
    const overflowing = { heads: 1, headDim: 1, segmentLength: 2, rule: 'linear' } as const;
    const streams = newStreams(4, overflowing);
    const batch = device.createBatch(streams);
    const rows = (third: number) => Float32Array.of(1, 1, third, 1);
    batch.stepSync({ q: rows(1), k: rows(1), v: rows(2e38) });
    const states = streams.map(stateOf);
    const memory = { q: rows(1), k: rows(1), v: rows(2e38) };
    const output = { q: rows(3e38), k: rows(3e38), v: rows(1) };
    for (const [input, tensor] of [
      [memory, 'memory'],
      [output, 'output'],
    ] as const) {
      const failure = { code: 'ERR_NON_FINITE', tensor, token: 0 };
      expectThrow(() => batch.stepSync(input), failure);
      await expectReject(() => batch.step(input), failure);
      expect(await batch.step(input).catch(({ stream }) => stream)).toBe(2);
    }
    expect(streams.map(stateOf)).toEqual(states);
    closeAll(batch, ...streams);
  });

  test('an error of no batch has no stream', () => {
    const [stream] = newStreams(1);
    const input = { ...dataOf(packed(1)), q: Float32Array.of(Number.NaN, 0) };
    expect.assertions(1);
    try {
      stream.attendSync(input);
    } catch (error) {
      expect(error).not.toHaveProperty('stream');
    }
    stream.close();
  });
});

describe('order', () => {
  test('a pending step is a pending call of each of its streams', async () => {
    const { stream: slow, front } = busyStream(device);
    const quick = device.createStream(slow.config);
    const batch = device.createBatch([quick, slow]);
    const width = 8 * slow.config.headDim;
    const [two, one] = [new Float32Array(2 * width), new Float32Array(width)];
    const input = { q: two, k: two, v: two };
    const pending = batch.step(input);
    const busy = { code: 'ERR_BUSY' };
    expectThrow(() => batch.stepSync(input), { ...busy, says: ['stepSync'] });
    expectThrow(() => quick.attendSync({ q: one, k: one, v: one }), busy);
    for (const method of ['memory', 'reset', 'fork'] as const) expectThrow(() => quick[method](), busy);
    expect([quick.tokens, slow.tokens]).toEqual([0, 0]);
    await front;
    const before = slow.tokens;
    await pending;
    expect([quick.tokens, slow.tokens]).toEqual([1, before + 1]);
    batch.stepSync(input);
    expect([quick.tokens, slow.tokens]).toEqual([2, before + 2]);
    closeAll(batch, quick, slow);
  });

  seededTest(
    'steps of overlapping batches and the streams’ own calls take effect in call order',
    async (rng) => {
      const config = { heads: 2, headDim: 4, segmentLength: 3 };
      const streams = newStreams(5, config);
      const twins = newStreams(5, config);
      const members = [[0, 1, 2], [3, 2, 1], [4], [2, 4, 0], [4, 3, 2, 1, 0]];
      const batches = members.map((indices) => device.createBatch(indices.map((i) => streams[i])));
      const results: Promise<void>[] = [];
      const order: number[] = [];
      for (let call = 0; call < 200; call++) {
        const which = rng.int(0, members.length + 2);
        const indices = members[which] ?? [rng.int(0, 4)];
        const input = makeInput(streams[0].config, indices.length, rng);
        const spoiled = rng.uniform() < 0.1;
        if (spoiled) input.k.data[0] = Number.NaN;
        const wanted = () =>
          Buffer.concat(
            indices.map((i, at) => bytesOf(twins[i].attendSync(dataOf(tokensOf(input, at, at + 1))))),
          );
        const pending =
          which < members.length
            ? batches[which].step(dataOf(input))
            : streams[indices[0]].attend(dataOf(input));
        const expected = spoiled ? null : wanted();
        results.push(
          pending.then(
            (output) => {
              order.push(call);
              expect(bytesOf(output).equals(expected as Buffer)).toBe(true);
            },
            (error) => expect([error.code, spoiled]).toEqual(['ERR_NON_FINITE', true]),
          ),
        );
      }
      await Promise.all(results);
      expect(order.length).toBeGreaterThan(100);
      expect(streams.map(stateOf)).toEqual(twins.map(stateOf));
      closeAll(...batches, ...streams, ...twins);
    },
  );
});

describe('closing', () => {
  const closed = { code: 'ERR_CLOSED' };

  test('the batch leaves its streams open, and rejects its pending steps alone', async () => {
    const { stream, front } = busyStream(device);
    const batch = device.createBatch([stream]);
    const row = new Float32Array(8 * stream.config.headDim);
    const input = { q: row, k: row, v: row };
    const steps = [batch.step(input), batch.step(input)];
    const own = stream.attend(input);
    batch.close();
    batch.close();
    expect(batch.closed).toBe(true);
    for (const step of steps) await expectReject(() => step, closed);
    await Promise.all([front, own]);
    expect(stream.closed).toBe(false);
    expectThrow(() => batch.stepSync(input), { ...closed, says: ['batch'] });
    await expectReject(() => batch.step(input), closed);
    await expectReject(() => batch.step(5 as never), closed);
    expect([batch.size, batch.streams[0]]).toEqual([1, stream]);
    batch[Symbol.dispose]();
    stream.close();
  });

  test('a stream closes the batches it is in, and frees its state', async () => {
    const streams = newStreams(3);
    const [batch, other] = [device.createBatch(streams), device.createBatch(streams.slice(1))];
    const before = device.stats().streamBytes;
    streams[0].close();
    expect(before - device.stats().streamBytes).toBe(streams[0].byteLength);
    expect([batch.closed, other.closed]).toEqual([true, false]);
    expectThrow(() => batch.stepSync(dataOf(packed(3))), closed);
    other.stepSync(dataOf(packed(2)));
    expect(streams.map(({ tokens }) => tokens)).toEqual([0, 1, 1]);
    closeAll(...streams);
    expect(other.closed).toBe(true);
  });

  test('a stream in mid-step rejects the step, and nothing of it is kept', async () => {
    const { stream: slow } = busyStream(device);
    const quick = device.createStream(slow.config);
    const batch = device.createBatch([quick, slow]);
    const rows = new Float32Array(16 * slow.config.headDim);
    const pending = batch.step({ q: rows, k: rows, v: rows });
    slow.close();
    await expectReject(() => pending, closed);
    expect(quick.tokens).toBe(0);
    const row = rows.subarray(0, rows.length / 2);
    const fresh = device.createStream(quick.config);
    const output = quick.attendSync({ q: row.fill(1), k: row, v: row });
    expect(bytesOf(output).equals(bytesOf(fresh.attendSync({ q: row, k: row, v: row })))).toBe(true);
    closeAll(quick, fresh);
  });

  test('the device closes them all', async () => {
    const own = openTestDevice();
    const { stream } = busyStream(own);
    const batch = own.createBatch([stream]);
    const row = new Float32Array(8 * stream.config.headDim);
    const pending = batch.step({ q: row, k: row, v: row });
    own.close();
    await expectReject(() => pending, closed);
    expect([batch.closed, stream.closed]).toEqual([true, true]);
  });

  test('`using` closes', () => {
    const streams = newStreams(1);
    let seen: Batch | undefined;
    {
      using batch = device.createBatch(streams);
      seen = batch;
    }
    expect([seen.closed, streams[0].closed]).toEqual([true, false]);
    closeAll(...streams);
  });
});

test('an aborted step is in none of its streams', async () => {
  const { stream: slow, front } = busyStream(device);
  const quick = device.createStream(slow.config);
  const batch = device.createBatch([quick, slow]);
  const rows = new Float32Array(16 * slow.config.headDim);
  const controller = new AbortController();
  const input = { q: rows, k: rows, v: rows };
  const pending = batch.step(input, { signal: controller.signal });
  controller.abort('enough');
  const error = await pending.catch((reason) => reason);
  expect(error).toMatchObject({ name: 'AbortError', code: 'ABORT_ERR', cause: 'enough' });
  await front;
  const { tokens } = slow;
  await expectReject(() => batch.step(input, { signal: AbortSignal.abort() }), { code: 'ABORT_ERR' });
  expect([quick.tokens, slow.tokens]).toEqual([0, tokens]);
  batch.stepSync(input);
  expect([quick.tokens, slow.tokens]).toEqual([1, tokens + 1]); // as native code counts, too
  closeAll(batch, quick, slow);
});

test('a step leases its tensors', async () => {
  const { stream, front } = busyStream(device);
  const batch = device.createBatch([stream]);
  const shape = [1, 8, stream.config.headDim];
  const [input, out] = [device.tensor(shape, 'float32'), device.tensor(shape, 'float32')];
  const pending = batch.step({ q: input, k: input, v: input, out });
  for (const tensor of [input, out]) expectThrow(() => tensor.close(), { code: 'ERR_BUSY' });
  await expectReject(() => out.read(), { code: 'ERR_BUSY' });
  expectThrow(() => batch.stepSync({ q: out, k: input, v: input, out }), { code: 'ERR_BUSY' });
  expect(await pending).toBe(out);
  await front;
  expectThrow(() => batch.stepSync({ q: out, k: input, v: input, out }), {
    code: 'ERR_BUSY',
    says: ['input.out'],
  });
  closeAll(input, out, batch, stream);
});

test('stats count its tokens and segments', () => {
  const streams = newStreams(3);
  const batch = device.createBatch(streams);
  const before = device.stats();
  for (let i = 0; i < 9; i++) batch.stepSync(dataOf(packed(3)));
  const after = device.stats();
  expect([after.tokens - before.tokens, after.segments - before.segments]).toEqual([27, 6]);
  closeAll(batch, ...streams);
});

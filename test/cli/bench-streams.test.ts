import { type BatchEntry, type Device, type MemoryStream, openDevice, type StreamConfig } from '../../lib';
import type { Case } from '../../lib/cli/bench/contender';
import { makeInput } from '../../lib/cli/bench/input';
import { markPlaces } from '../../lib/cli/bench/scaling';
import { enterOwn } from '../../lib/cli/bench/stream';

describe('a wrong result has no time', () => {
  const never = new AbortController().signal;
  const types = { dtype: 'float32', rule: 'delta' } as const;
  const little: Case = {
    work: 'prefill',
    heads: 2,
    kvHeads: 1,
    headDim: 8,
    segment: 16,
    threads: 2,
    ...types,
  };

  /** A device of its own, and its streams with these methods in place of their own. */
  function changed(methods: (stream: MemoryStream) => object): Device {
    const device = openDevice('cpu');
    return Object.assign(device, {
      createStream: (config: StreamConfig) => {
        const stream: MemoryStream = device.constructor.prototype.createStream.call(device, config);
        const others = methods(stream);
        return new Proxy(stream, {
          get(target, name) {
            if (Object.hasOwn(others, name)) return Reflect.get(others, name);
            const value = Reflect.get(target, name, target);
            return typeof value === 'function' ? value.bind(target) : value;
          },
        });
      },
    });
  }

  const shifted = (by: number) =>
    changed((stream) => ({
      attend: async (...args: Parameters<MemoryStream['attend']>) =>
        ((await stream.attend(...args)) as Float32Array).map((x) => x * (1 + by)),
    }));

  test.each(['prefill', 'decode', 'state', 'batch', 'step'] as const)('outputs of %s', async (work) => {
    using device = shifted(1e-3);
    const wrong = enterOwn(device, { ...little, work, streams: 1 }, never);
    await expect(wrong).rejects.toThrow(/^token \d+ of head \d .*from float64/);
  });

  test('a memory', async () => {
    let calls = 0;
    using device = changed((stream) => ({
      memory: () => {
        const { matrix, normalizer } = stream.memory();
        calls++;
        return { matrix: calls > 2 ? matrix.map((x) => x * 1.001) : matrix, normalizer };
      },
    }));
    const wrong = enterOwn(device, { ...little, work: 'state' }, never);
    await expect(wrong).rejects.toThrow(/^the memory of head 0 is .* from float64/);
  });

  test.each(['attendBatch', 'createBatch'] as const)(
    'streams that influence each other: %s',
    async (name) => {
      using device = openDevice('cpu');
      const spoil = (out: unknown) => {
        (out as Float32Array)[3] += 0.01;
      };
      const { attendBatch, createBatch } = device;
      const others = {
        attendBatch: async (entries: BatchEntry[]) => {
          const settled = await attendBatch.call(device, entries);
          spoil(entries[0].out);
          return settled;
        },
        createBatch: (streams: MemoryStream[]) => {
          const batch = createBatch.call(device, streams);
          return {
            stepSync: (input: { out: unknown }) => spoil(batch.stepSync(input as never) && input.out),
          };
        },
      };
      Object.assign(device, { [name]: others[name] });
      const work = name === 'attendBatch' ? 'batch' : 'step';
      const wrong = enterOwn(device, { ...little, work, streams: 2 }, never);
      await expect(wrong).rejects.toThrow(/^stream 0 differs from itself alone/);
    },
  );

  test.each([
    ['prefill', undefined, 5],
    ['decode', undefined, 1],
    ['state', undefined, 9],
    ['batch', 3, 3],
    ['step', 3, 3],
  ] as const)('right ones of %s have', async (work, streams, least) => {
    using device = openDevice('cpu');
    const contender = await enterOwn(device, { ...little, work, streams }, never);
    expect(contender.about?.error).toBeLessThan(1e-6);
    const { tokens, seconds, elapsed = seconds } = await contender.run();
    expect(tokens % 16).toBe(0);
    expect(tokens / 16).toBeGreaterThanOrEqual(least);
    expect(seconds).toBeGreaterThan(0);
    expect(elapsed).toBeGreaterThanOrEqual(seconds);
    expect(device.stats().streams).toBeGreaterThan(0);
    contender.close();
    expect(device.stats().streams).toBe(0);
  });

  test('places on a stream are whole segments, and hold what the stream held', async () => {
    using device = openDevice('cpu');
    const seen: number[] = [];
    const places = await markPlaces(device, little, [3, 40, 100_000], never, (tokens) => seen.push(tokens));
    expect(places.map(({ tokens }) => tokens)).toEqual([16, 48, 100_000]);
    expect(seen.at(-1)).toBe(100_000);
    using alone = device.createStream({ heads: 2, kvHeads: 1, headDim: 8, segmentLength: 16 });
    for (const tokens of [16, 32]) await alone.attend(makeInput(little, tokens));
    expect(places[1].stream.memory()).toEqual(alone.memory());
    for (const { stream } of places) stream.close();
    expect(device.stats().streams).toBe(1);
  });
});

import type { Device, StreamConfig } from '../../lib';
import { openTestDevice } from '../support/device';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const resolve = (config: StreamConfig) => {
  const stream = device.createStream(config);
  const resolved = stream.config;
  stream.close();
  return resolved;
};

test('every default is filled in', () => {
  expect(resolve({ heads: 4, headDim: 8 })).toEqual({
    heads: 4,
    kvHeads: 4,
    headDim: 8,
    valueDim: 8,
    segmentLength: 2048,
    rule: 'delta',
    gate: [0, 0, 0, 0],
    scale: 1 / Math.sqrt(8),
    rope: null,
    emptyRead: 'gated',
    dtype: 'float32',
  });
});

test('what is given is kept', () => {
  const given: StreamConfig = {
    heads: 6,
    kvHeads: 2,
    headDim: 10,
    valueDim: 3,
    segmentLength: 77,
    rule: 'linear',
    gate: [0, -1, 2.5, 1e-300, 700, -700],
    scale: 0.123456789012345,
    rope: { theta: 123.25 },
    emptyRead: 'local',
    dtype: 'bfloat16',
  };
  expect(resolve(given)).toEqual(given);
});

test('a resolved configuration makes the same stream again', () => {
  const first = resolve({ heads: 2, headDim: 6, gate: 0.1, rope: { theta: 10 }, dtype: 'float16' });
  expect(resolve({ ...first })).toEqual(first);
  expect(resolve(first)).toEqual(first);
});

test.each([
  ['a number', 0.5, [0.5, 0.5]],
  ['an array', [0.5, -1], [0.5, -1]],
  ['a typed array', Float64Array.of(0.1, -0.1), [0.1, -0.1]],
  ['an array-like object', { length: 2, 0: 3, 1: 4 }, [3, 4]],
])('gate as %s becomes an array of one number per query head', (_, gate, wanted) => {
  const config = resolve({ heads: 2, kvHeads: 1, headDim: 1, gate });
  expect(config.gate).toEqual(wanted);
  expect(Array.isArray(config.gate)).toBe(true);
});

test.each([
  ['undefined', undefined],
  ['null', null],
])('rope %s is null in the resolved configuration', (_, rope) => {
  expect(resolve({ heads: 1, headDim: 3, rope })).toHaveProperty('rope', null);
});

test('an optional key that is undefined counts as absent', () => {
  const keys = [
    'kvHeads',
    'valueDim',
    'segmentLength',
    'rule',
    'gate',
    'scale',
    'rope',
    'emptyRead',
    'dtype',
  ];
  const absent = Object.fromEntries(keys.map((name) => [name, undefined]));
  expect(resolve({ heads: 3, headDim: 5, ...absent })).toEqual(resolve({ heads: 3, headDim: 5 }));
});

test('the limits themselves are accepted', () => {
  expect(resolve({ heads: 1024, kvHeads: 1, headDim: 256, valueDim: 256, segmentLength: 1 }).heads).toBe(
    1024,
  );
  expect(resolve({ heads: 1024, headDim: 1, segmentLength: 1 }).kvHeads).toBe(1024);
  expect(resolve({ heads: 1, headDim: 1, segmentLength: 65536 }).segmentLength).toBe(65536);
});

test('the configuration is deeply frozen and one object for the life of the stream', () => {
  const stream = device.createStream({ heads: 2, headDim: 4, gate: [1, 2], rope: { theta: 5 } });
  const { config } = stream;
  expect([config, config.gate, config.rope].map((part) => Object.isFrozen(part))).toEqual([true, true, true]);
  expect(stream.config).toBe(config);
  expect(() => Object.assign(stream, { config: {} })).toThrow('only a getter');
  expect(() => Object.assign(config, { heads: 3 })).toThrow('read only');
  stream.close();
  expect(stream.config).toBe(config);
});

test('changing the given objects afterwards changes nothing', () => {
  const gate = [1, 2];
  const rope = { theta: 5 };
  const given = { heads: 2, headDim: 4, gate, rope };
  const stream = device.createStream(given);
  gate[0] = 99;
  rope.theta = 99;
  given.heads = 99;
  expect(stream.config).toMatchObject({ heads: 2, gate: [1, 2], rope: { theta: 5 } });
  stream.close();
});

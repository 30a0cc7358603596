import { availableParallelism } from 'node:os';
import { listDevices, openDevice } from '../../lib';
import { expectThrow } from '../support/failures';

const hasGpu = listDevices().some(({ backend }) => backend === 'cuda');
const open = openDevice as (...args: unknown[]) => ReturnType<typeof openDevice>;
const TYPE = 'ERR_INVALID_ARG_TYPE';
const RANGE = 'ERR_OUT_OF_RANGE';

test('the CPU is always listed, once, with its name, threads and instruction set', () => {
  const cpus = listDevices().filter(({ backend }) => backend === 'cpu');
  expect(cpus).toEqual([
    {
      id: 'cpu',
      backend: 'cpu',
      name: expect.stringMatching(/\S/),
      threads: availableParallelism(),
      simd: expect.stringMatching(/^(portable|avx2|avx512|amx)$/),
    },
  ]);
});

test('an opened CPU says what it is, in a frozen record', () => {
  const device = openDevice('cpu');
  expect(device.info).toEqual(listDevices().find(({ id }) => id === 'cpu'));
  expect(Object.isFrozen(device.info)).toBe(true);
  device.close();
});

test('auto takes the best device there is, and is the default', () => {
  for (const device of [openDevice(), openDevice('auto'), openDevice(undefined)]) {
    expect(device.info.backend).toBe(hasGpu ? 'cuda' : 'cpu');
    device.close();
  }
});

(hasGpu ? test.skip : test)('a GPU that is not here is ERR_NO_DEVICE, and the message says why', () => {
  for (const id of ['cuda', 'cuda:0', 'cuda:7'] as const) {
    expectThrow(() => openDevice(id), { code: 'ERR_NO_DEVICE', says: [/cuda|gpu|nvidia/i, /.{20}/] });
  }
});

test('other ids are out of range, and other types wrong types', () => {
  for (const id of [
    'gpu',
    '',
    'CPU',
    'cpu ',
    'cpu:0',
    'cuda:',
    'cuda:x',
    'cuda:-1',
    'cuda:1.5',
    'cuda:0x1',
    'cuda: 1',
  ]) {
    expectThrow(() => open(id), { code: RANGE, says: ["'cpu'", `'${id}'`] });
  }
  for (const id of [5, null, {}, true, ['cpu'], Symbol('cpu'), 1n]) {
    expectThrow(() => open(id), { code: TYPE, says: ['id', 'string'] });
  }
});

test('threads is a whole number from 1', () => {
  for (const threads of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 40]) {
    expectThrow(() => open('cpu', { threads }), { code: RANGE, says: ['threads', String(threads)] });
  }
  for (const threads of ['2', null, 2n, {}]) {
    expectThrow(() => open('cpu', { threads }), { code: TYPE, says: ['threads', 'number'] });
  }
  const device = openDevice('cpu', { threads: 1 });
  expect(device.info.threads).toBe(1);
  device.close();
  openDevice('cpu', { threads: undefined }).close();
});

test('options is an object with known keys', () => {
  for (const options of [5, null, 'x', [], () => ({})]) {
    expectThrow(() => open('cpu', options), { code: TYPE, says: ['options', 'object'] });
  }
  expectThrow(() => open('cpu', { thread: 2 }), { code: TYPE, says: ['options', "'thread'", "'threads'"] });
});

test('closing a device closes its streams, and those of no other handle', () => {
  const [first, second] = [openDevice('cpu'), openDevice('cpu')];
  const before = first.stats();
  const mine = [1, 2, 3].map(() => first.createStream({ heads: 1, headDim: 2, segmentLength: 4 }));
  const other = second.createStream({ heads: 1, headDim: 2, segmentLength: 4 });
  const fork = mine[0].fork();
  expect(first.stats().streams).toBe(before.streams + 5);
  first.close();
  expect([...mine, fork, other].map(({ closed }) => closed)).toEqual([true, true, true, true, false]);
  expect(second.stats().streams).toBe(before.streams + 1);
  const token = Float32Array.of(1, 2);
  expect(other.attendSync({ q: token, k: token, v: token }).length).toBe(2);
  second.close();
  expect(other.closed).toBe(true);
});

test('a closed device makes no streams; closing again and disposing do nothing', () => {
  const device = openDevice('cpu');
  device.close();
  device.close();
  device[Symbol.dispose]();
  expectThrow(() => device.createStream({ heads: 1, headDim: 1 }), { code: 'ERR_CLOSED', says: ['device'] });
  expectThrow(() => device.createStream({ heads: 0, headDim: 1 }), { code: 'ERR_CLOSED' });
  expect(device.info.id).toBe('cpu');
});

test('disposing a device closes it', () => {
  const device = openDevice('cpu');
  const stream = device.createStream({ heads: 1, headDim: 1 });
  device[Symbol.dispose]();
  expect(stream.closed).toBe(true);
});

test('stats count streams, tokens, segments and work', () => {
  const device = openDevice('cpu');
  const before = device.stats();
  const stream = device.createStream({ heads: 2, headDim: 4, segmentLength: 3 });
  const zeros = (length: number) => new Float32Array(length);
  stream.attendSync({ q: zeros(80), k: zeros(80), v: zeros(80) });
  const after = device.stats();
  expect(after.streams - before.streams).toBe(1);
  expect(after.streamBytes - before.streamBytes).toBe(stream.byteLength);
  expect(after.tokens - before.tokens).toBe(10);
  expect(after.segments - before.segments).toBe(3);
  expect(after.units).toBeGreaterThan(before.units);
  expect(after.pendingCalls).toBe(0);
  stream.close();
  expect(device.stats()).toMatchObject({ streams: before.streams, streamBytes: before.streamBytes });
  device.close();
});

import type { Device, StreamConfig } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectThrow } from '../support/failures';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const TYPE = 'ERR_INVALID_ARG_TYPE';
const RANGE = 'ERR_OUT_OF_RANGE';
const SHAPE = 'ERR_SHAPE';

function refuse(config: unknown, code: string, says: (string | RegExp)[]): void {
  const { streams, streamBytes } = device.stats();
  expectThrow(() => device.createStream(config as StreamConfig), { code, says });
  expect(device.stats()).toMatchObject({ streams, streamBytes });
}

const base = { heads: 6, headDim: 4 };

describe('a configuration', () => {
  test.each([
    ['absent', undefined, 'undefined'],
    ['null', null, 'null'],
    ['a number', 5, '5'],
    ['a string', 'x', "'x'"],
    ['an array', [base], 'array'],
    ['a function', () => base, 'function'],
    ['a typed array', new Float32Array(2), 'Float32Array'],
  ])('that is %s is a wrong type', (_, config, came) => {
    refuse(config, TYPE, ['config', 'object', came]);
  });

  test.each(['heads', 'headDim'])('without %s is a wrong type', (key) => {
    refuse({ ...base, [key]: undefined }, TYPE, [key, 'number', 'undefined']);
    const { [key as 'heads']: _, ...rest } = base;
    refuse(rest, TYPE, [key, 'number', 'undefined']);
  });

  test('with an unknown key is a wrong type that names the key', () => {
    refuse({ ...base, headdim: 4 }, TYPE, ['config', "'headdim'", "'headDim'"]);
    refuse({ ...base, '': 1 }, TYPE, ['config']);
  });
});

describe.each([
  ['heads', 1024],
  ['kvHeads', 1024],
  ['headDim', 256],
  ['valueDim', 256],
  ['segmentLength', 65536],
])('%s', (key, max) => {
  test.each([
    ["'4'", '4'],
    ['null', null],
    ['true', true],
    ['4n', 4n],
    ['object', { valueOf: () => 4 }],
    ['array', [4]],
    ['symbol', Symbol('4')],
  ])('as %s is a wrong type', (came, value) => {
    refuse({ ...base, [key]: value }, TYPE, [key, 'number', came]);
  });

  test.each([0, -0, -1, 1.5, 0.999, Number.NaN, Number.POSITIVE_INFINITY, max + 1, 2 ** 32 + 1, 1e300])(
    'of %p is out of range',
    (value) => refuse({ ...base, [key]: value }, RANGE, [key, String(max), /-?\d|nan|inf/i]),
  );
});

test.each([4, 5, 12, 7])('kvHeads of %d does not divide 6 heads and is out of range', (kvHeads) => {
  refuse({ ...base, kvHeads }, RANGE, ['kvHeads', '6', String(kvHeads)]);
});

describe.each([
  ['rule', ['linear', 'delta'], ['Delta', '', 'linear ', 'deltanet']],
  ['emptyRead', ['gated', 'local'], ['zero', 'GATED']],
  ['dtype', ['float32', 'bfloat16', 'float16'], ['float64', 'f16', 'half']],
])('%s', (key, names, wrong) => {
  test('takes its names only', () => {
    for (const name of wrong) refuse({ ...base, [key]: name }, RANGE, [key, `'${name}'`, ...names]);
    for (const value of [1, null, {}, true, [names[0]], Object(names[0])]) {
      refuse({ ...base, [key]: value }, TYPE, [key, 'string']);
    }
  });

  test('accepts every one of them', () => {
    for (const name of names) device.createStream({ ...base, [key]: name }).close();
    expect.assertions(0);
  });
});

describe('scale', () => {
  test('must be finite and above 0', () => {
    for (const scale of [0, -0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
      refuse({ ...base, scale }, RANGE, ['scale', 'finite', '0']);
    }
    for (const scale of ['1', null, 1n, {}]) refuse({ ...base, scale }, TYPE, ['scale', 'number']);
  });
});

describe('gate', () => {
  const all = (beta: unknown) => new Array(6).fill(beta);

  test('must hold finite numbers', () => {
    for (const beta of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      refuse({ ...base, gate: beta }, RANGE, ['gate', 'finite', /nan|inf/i]);
      refuse({ ...base, gate: [0, 0, 0, 0, 0, beta] }, RANGE, ['gate', 'finite', /nan|inf/i]);
      refuse({ ...base, gate: Float32Array.from(all(beta)) }, RANGE, ['gate', 'finite']);
    }
  });

  test('must be a number or an array of numbers', () => {
    for (const gate of ['0', '000000', null, {}, true, 0n, () => 0, Symbol('0'), new Map()]) {
      refuse({ ...base, gate }, TYPE, ['gate', 'number']);
    }
    for (const gate of [
      all('0'),
      all(null),
      all(0n),
      new Array(6),
      [0, 0, 0, 0, 0, undefined],
      new BigInt64Array(6),
    ]) {
      refuse({ ...base, gate }, TYPE, ['gate', 'number']);
    }
  });

  test('must hold one number per query head', () => {
    for (const gate of [[], [0], all(0).slice(1), [...all(0), 0], new Float32Array(7), { length: 2 ** 40 }]) {
      refuse({ ...base, gate }, SHAPE, ['gate', String(gate.length)]);
    }
  });
});

describe('rope', () => {
  test('must be an object with theta, a finite number above 0', () => {
    for (const rope of [10_000, 'llama', true, [10_000], () => null])
      refuse({ ...base, rope }, TYPE, ['rope', 'object']);
    for (const theta of [undefined, '10000', null, 1n])
      refuse({ ...base, rope: { theta } }, TYPE, ['theta', 'number']);
    refuse({ ...base, rope: {} }, TYPE, ['theta', 'number', 'undefined']);
    refuse({ ...base, rope: { theta: 1, factor: 2 } }, TYPE, ['rope', "'factor'", "'theta'"]);
    for (const theta of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
      refuse({ ...base, rope: { theta } }, RANGE, ['theta', 'finite']);
    }
  });

  test('needs an even headDim', () => {
    refuse({ ...base, headDim: 5, rope: { theta: 10_000 } }, RANGE, ['headDim', 'even', '5', 'rope']);
    device.createStream({ ...base, headDim: 5, rope: null }).close();
  });
});

import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { type Device, openDevice, type StreamConfig } from '../../lib';
import { DEVICE_ID, emulated, onCuda, openTestDevice } from '../support/device';
import { expectThrow } from '../support/failures';

const root = path.join(__dirname, '..', '..');

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const configs: StreamConfig[] = [
  { heads: 1, headDim: 1, segmentLength: 1 },
  { heads: 3, headDim: 5, valueDim: 7, segmentLength: 11 },
  { heads: 8, kvHeads: 2, headDim: 64, segmentLength: 512, dtype: 'bfloat16' },
  { heads: 4, headDim: 33, valueDim: 129, segmentLength: 100, dtype: 'float16', rope: null },
  { heads: 8, headDim: 64 },
];

test.each(configs)('capacity is floor(bytes / byteLength) of %j', (config) => {
  using stream = device.createStream(config);
  const bytes = stream.byteLength;
  const capacities = [0, bytes - 1, bytes, 2 * bytes - 1, 2 * bytes, 1000 * bytes + 1, 0.5].map((given) =>
    device.capacity(config, given),
  );
  expect(capacities).toEqual([0, 0, 1, 1, 2, 1000, 0]);
});

test('what is free now is the default', () => {
  const free = device.capacity({ heads: 8, headDim: 64 });
  expect(Number.isInteger(free) && free > 0).toBe(true);
  expect(device.capacity({ heads: 1024, headDim: 256, segmentLength: 65536 })).toBeLessThanOrEqual(
    free / 100,
  );
});

test('wrong configurations and bytes are refused', () => {
  const capacity = device.capacity.bind(device) as (...args: unknown[]) => number;
  expectThrow(() => capacity({ heads: 0, headDim: 1 }), { code: 'ERR_OUT_OF_RANGE' });
  expectThrow(() => capacity(undefined), { code: 'ERR_INVALID_ARG_TYPE' });
  for (const bytes of ['1', null, 1n])
    expectThrow(() => capacity(configs[0], bytes), { code: 'ERR_INVALID_ARG_TYPE', says: ['bytes'] });
  for (const bytes of [-1, Number.NaN, Number.POSITIVE_INFINITY])
    expectThrow(() => capacity(configs[0], bytes), { code: 'ERR_OUT_OF_RANGE', says: ['bytes'] });
  const closed = openDevice('cpu');
  closed.close();
  expectThrow(() => closed.capacity(configs[0]), { code: 'ERR_CLOSED' });
});

// A sanitizer's shadow memory needs more address space than there is.
const limited = process.platform === 'linux' && process.env.INFINI_STREAM_SANITIZED === undefined;
const reallyOnGpu = onCuda && !emulated;

const shapes = emulated
  ? [{ heads: 4, headDim: 64, segmentLength: 1024 }]
  : [
      { heads: 16, headDim: 256, segmentLength: 1 }, // nearly all of it in the memory, which is touched
      { heads: 4, headDim: 64, segmentLength: 8192 }, // nearly all of it in the segment, which is not
    ];

(limited && !reallyOnGpu ? test.each(shapes) : test.skip.each(shapes))(
  'in a limited memory as many streams of %j can be made as it says',
  (shape) => {
    const program = `
    const config = ${JSON.stringify(shape)};
    const said = device.capacity(config);
    const streams = [];
    let code;
    try { while (streams.length < 2 * said + 10) streams.push(device.createStream(config)); } catch (error) { code = error.code; }
    console.log(JSON.stringify({ said, made: streams.length, left: device.capacity(config), code }));
  `;
    const open = `const device = require(${JSON.stringify(root)}).openDevice(${JSON.stringify(DEVICE_ID)});`;
    const env = { ...process.env, ...(emulated && { INFINI_EMULATED_MEMORY: String(64 << 20) }) };
    const run = (source: string, limit: string) =>
      JSON.parse(
        execFileSync('sh', ['-c', `${limit} exec "$0" -e "$1"`, process.execPath, open + source], {
          encoding: 'utf8',
          timeout: 60_000,
          env,
        }),
      );
    const pages = run(
      "console.log(require('node:fs').readFileSync('/proc/self/statm', 'utf8').split(' ')[0]);",
      '',
    );
    const limit = emulated ? '' : `ulimit -v ${4 * pages + 1_000_000};`; // KB
    const { said, made, left, code } = run(program, limit);
    expect(code).toBe('ERR_OUT_OF_MEMORY');
    expect(said).toBeGreaterThan(10);
    expect(made).toBeGreaterThanOrEqual(0.8 * said);
    expect(made).toBeLessThanOrEqual(1.1 * said + 1);
    expect(left).toBeLessThanOrEqual(0.1 * said + 4);
  },
);

import { totalmem } from 'node:os';
import type { Device, StreamConfig } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectThrow } from '../support/failures';

// The sanitizer writes its own notes about every block.
const sanitized = process.env.INFINI_STREAM_SANITIZED !== undefined;

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

/** 137 GB. */
const HUGE: StreamConfig = { heads: 1024, headDim: 256, valueDim: 256, segmentLength: 65536 };

(totalmem() > 137e9 ? test.skip : test)(
  'a stream larger than the memory is refused at once and costs nothing',
  () => {
    const small = device.createStream({ heads: 1, headDim: 2 });
    const before = { ...device.stats(), rss: process.memoryUsage.rss() };
    const begin = performance.now();
    for (let i = 0; i < 20; i++) {
      expectThrow(() => device.createStream(HUGE), {
        code: 'ERR_OUT_OF_MEMORY',
        says: [/13[0-9](\.\d+)? ?GB|12[0-9](\.\d+)? ?GiB|13\d{10}/],
      });
    }
    expect(performance.now() - begin).toBeLessThan(2000);
    if (!sanitized) expect(process.memoryUsage.rss() - before.rss).toBeLessThan(8 * 2 ** 20);
    expect(device.stats()).toMatchObject({ streams: before.streams, streamBytes: before.streamBytes });
    const zero = new Float32Array(2);
    expect(small.attendSync({ q: zero, k: zero, v: zero }).length).toBe(2);
    small.close();
  },
);

(sanitized ? test.skip : test)(
  'streams of many gigabytes in all are refused when their sum is too much, before their pages are written',
  () => {
    const share: StreamConfig = {
      heads: 64,
      headDim: 256,
      valueDim: 256,
      segmentLength: 32768,
      dtype: 'float16',
    }; // 2.1 GB
    const rss = process.memoryUsage.rss();
    const streams = [];
    let refusal: unknown;
    for (let bytes = 0; bytes < 2 * totalmem(); bytes += 2.1e9) {
      try {
        streams.push(device.createStream(share));
      } catch (error) {
        refusal = error;
        break;
      }
    }
    expectThrow(
      () => {
        throw refusal;
      },
      { code: 'ERR_OUT_OF_MEMORY' },
    );
    expect(process.memoryUsage.rss() - rss).toBeLessThan(256 * 2 ** 20);
    for (const stream of streams) stream.close();
  },
);

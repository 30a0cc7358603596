import type { Device, Tensor } from '../../lib';
import { BFLOAT16, decodeHalf, FLOAT16 } from '../reference/half';
import { onCuda, openTestDevice } from '../support/device';
import { expectThrow } from '../support/failures';

/** Every number of the 16-bit types goes in and comes out, subnormal ones included. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const WIDTH = 256;
/** 2^-108 as bfloat16: on CUDA values are summed under weights of 2^-17, and what is smaller loses digits. */
const SMALLEST_ON_CUDA = (127 - 108) << 7;
/** Sums of sigma(q) z are float32 there. */
const LARGEST_Z_ON_CUDA = 2 ** 117;

describe.each([FLOAT16, BFLOAT16])('$name', (format) => {
  const finite = Array.from({ length: 65536 }, (_, bits) => bits).filter(
    (bits) => (bits & 0x7fff) < format.infinity,
  );
  const blocks = Array.from({ length: Math.ceil(finite.length / WIDTH) }, (_, i) =>
    Uint16Array.from({ length: WIDTH }, (_, j) => finite[(i * WIDTH + j) % finite.length]),
  );

  test('a single token attends to itself: its value comes back bit for bit', () => {
    const config = { heads: 1, headDim: 1, valueDim: WIDTH, segmentLength: 8, emptyRead: 'local' as const };
    const stream = device.createStream({ ...config, dtype: format.name });
    const zero = new Uint16Array(1);
    let compared = 0;
    for (const v of blocks) {
      const output = stream.attendSync({ q: zero, k: zero, v });
      for (const [j, bits] of output.entries()) {
        const tiny = onCuda && format.name === 'bfloat16' && (v[j] & 0x7fff) < SMALLEST_ON_CUDA;
        // The sign of zero may go.
        const same =
          bits === v[j] || ((bits | v[j]) & 0x7fff) === 0 || (tiny && (bits & 0x7fff) < SMALLEST_ON_CUDA);
        if (!same) throw new Error(`0x${v[j].toString(16)} became 0x${bits.toString(16)}`);
        compared++;
      }
      stream.reset();
    }
    expect(compared).toBe(blocks.length * WIDTH);
    expect(compared).toBeGreaterThanOrEqual(2 * format.infinity);
    stream.close();
  });

  test('keys are decoded right: sigma of each lies in z', () => {
    const stream = device.createStream({
      heads: 1,
      headDim: WIDTH,
      valueDim: 1,
      segmentLength: 1,
      dtype: format.name,
    });
    const zeros: Tensor = new Uint16Array(WIDTH);
    let compared = 0;
    for (const k of blocks) {
      stream.reset();
      const call = () => stream.attendSync({ q: zeros, k, v: zeros.subarray(0, 1) });
      if (onCuda && k.some((bits) => decodeHalf(bits, format) > LARGEST_Z_ON_CUDA)) {
        expectThrow(call, { code: 'ERR_NON_FINITE', tensor: 'memory', token: 0 });
        compared += WIDTH;
        continue;
      }
      call();
      const { normalizer } = stream.memory();
      for (const [j, z] of normalizer.entries()) {
        const x = decodeHalf(k[j], format);
        const wanted = x > 0 ? x + 1 : x < -87 ? 0 : Math.exp(x);
        if (!(Math.abs(z - wanted) <= 2e-7 * wanted)) throw new Error(`sigma(${x}) is ${wanted}, not ${z}`);
        compared++;
      }
    }
    expect(compared).toBe(blocks.length * WIDTH);
    stream.close();
  });
});

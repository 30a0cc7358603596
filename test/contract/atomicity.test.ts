import type { Device, MemoryStream, StreamConfig } from '../../lib';
import { openTestDevice } from '../support/device';
import { dataOf, makeInput } from '../support/inputs';
import { expectRefused } from '../support/refusals';
import type { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { stateOf } from '../support/state';
import { bytesOf, DTYPES, poisoned } from '../support/tensors';

/** A call that fails leaves the stream bit for bit as it was, wherever in a segment it stood. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const N = 6;
const BEFORE = [0, 1, N - 1, N, N + 1, 3 * N + 2];
const TOKENS = 4 * N + 3; // crosses several segments
const NAN = { float32: Number.NaN, float16: 0x7e00, bfloat16: 0x7fc0 };

const configOf = (dtype: (typeof DTYPES)[number], rule: 'linear' | 'delta'): StreamConfig => ({
  heads: 4,
  kvHeads: 2,
  headDim: 6,
  valueDim: 5,
  segmentLength: N,
  dtype,
  rule,
  rope: { theta: 100 },
});

function standingAt(tokens: number, config: StreamConfig, rng: Rng): MemoryStream {
  const stream = device.createStream(config);
  if (tokens > 0) stream.attendSync(dataOf(makeInput(stream.config, tokens, rng)));
  return stream;
}

describe.each(DTYPES)('a failed call on a %s stream', (dtype) => {
  for (const rule of ['linear', 'delta'] as const) {
    seededTest(`with NaN at its first or last token changes nothing, by the ${rule} rule`, async (rng) => {
      for (const before of BEFORE) {
        const stream = standingAt(before, configOf(dtype, rule), rng);
        for (const token of [0, TOKENS - 1]) {
          const input = dataOf(makeInput(stream.config, TOKENS, rng));
          input.v[token * 10 + 3] = NAN[dtype];
          const options = { out: poisoned(dtype, TOKENS * 20) };
          await expectRefused(
            stream,
            'attend',
            input,
            { code: 'ERR_NON_FINITE', tensor: 'v', token },
            options,
          );
        }
        expect(stream.tokens).toBe(before);
        stream.close();
      }
    });
  }

  seededTest('changes nothing for the calls after it', async (rng) => {
    const config = configOf(dtype, 'delta');
    const [touched, untouched] = [device.createStream(config), device.createStream(config)];
    for (let i = 0; i < 30; i++) {
      const bad = dataOf(makeInput(touched.config, rng.int(1, 20), rng));
      bad.k[rng.int(0, bad.k.length - 1)] = NAN[dtype];
      const refused = touched.attend(bad).then(
        () => 'accepted',
        (error: { code: string }) => error.code,
      );
      const good = dataOf(makeInput(touched.config, rng.int(1, 10), rng));
      const output = touched.attend(good); // queued behind the call that fails
      expect(await refused).toBe('ERR_NON_FINITE');
      expect(bytesOf(await output).equals(bytesOf(untouched.attendSync(good)))).toBe(true);
    }
    expect(touched.segments).toBeGreaterThan(4);
    expect(stateOf(touched)).toEqual(stateOf(untouched));
    touched.close();
    untouched.close();
  });
});

seededTest(
  'a call whose memory overflows in its last segment keeps none of the segments before it',
  async (rng) => {
    for (const before of BEFORE) {
      const stream = standingAt(before, configOf('float32', 'linear'), rng);
      const input = makeInput(stream.config, TOKENS, rng);
      const last = N * Math.floor((before + TOKENS) / N) - before - 1; // the last token that closes a segment
      for (const token of [last - 1, last]) {
        input.k.data.fill(1, token * 12, (token + 1) * 12);
        input.v.data.fill(1.5e38, token * 10, (token + 1) * 10);
      }
      const failure = { code: 'ERR_NON_FINITE', tensor: 'memory', token: last };
      await expectRefused(stream, 'attend', dataOf(input), failure);
      expect(stream.tokens).toBe(before);
      stream.close();
    }
  },
);

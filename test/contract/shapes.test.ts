import type { Device } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectRefused, withHistory } from '../support/refusals';

/** A token is 24 elements of q, 12 of k, 6 of v and 12 of the output. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const newStream = () =>
  withHistory(device.createStream({ heads: 4, kvHeads: 2, headDim: 6, valueDim: 3, segmentLength: 4 }));
const array = (length: number) => new Float32Array(length);
const input = (tokens: number) => ({ q: array(24 * tokens), k: array(12 * tokens), v: array(6 * tokens) });

test('any number of tokens from 1 up is inferred, and the output has one row for each', async () => {
  const stream = newStream();
  let { tokens } = stream;
  for (const count of [1, 2, 3, 4, 5, 9, 100]) {
    expect(stream.attendSync(input(count)).length).toBe(12 * count);
    expect((await stream.attend(input(count))).length).toBe(12 * count);
    tokens += 2 * count;
    expect(stream.tokens).toBe(tokens);
    expect(stream.segments).toBe(Math.floor(tokens / 4));
    expect(stream.retrieveSync({ q: array(24 * count) }).length).toBe(12 * count);
    expect((await stream.retrieve({ q: array(24 * count) })).length).toBe(12 * count);
    expect(stream.tokens).toBe(tokens);
  }
  stream.close();
});

test.each([1, 23, 25, 24 * 3 + 12])('q of %d elements is no whole number of tokens', async (length) => {
  const stream = newStream();
  const failure = { code: 'ERR_SHAPE', says: ['input.q', '[tokens, 4, 6]', '24', `${length} elements`] };
  await expectRefused(stream, 'attend', { ...input(3), q: array(length) }, failure);
  await expectRefused(stream, 'retrieve', { q: array(length) }, failure);
  stream.close();
});

test.each([
  ['k', '[3, 2, 6]', 36, [1, 12, 24, 35, 37, 48, 72]],
  ['v', '[3, 2, 3]', 18, [1, 6, 12, 17, 19, 24, 36]],
] as const)('%s must agree with the tokens of q', async (name, shape, wanted, lengths) => {
  const stream = newStream();
  for (const length of lengths) {
    const failure = {
      code: 'ERR_SHAPE',
      says: [`input.${name}`, shape, String(wanted), `${length} elements`],
    };
    await expectRefused(stream, 'attend', { ...input(3), [name]: array(length) }, failure);
  }
  stream.close();
});

test('out must have exactly the length of the output', async () => {
  const stream = newStream();
  for (const length of [0, 1, 35, 37, 24, 48]) {
    const out = array(length).fill(7);
    const failure = { code: 'ERR_SHAPE', says: ['options.out', '[3, 4, 3]', '36', `${length} elements`] };
    await expectRefused(stream, 'attend', input(3), failure, { out });
    await expectRefused(stream, 'retrieve', { q: array(72) }, failure, { out });
  }
  stream.close();
});

import { allowedErrors, errorsByHead } from '../support/accuracy';
import { onCuda, openTestDevice } from '../support/device';
import { cut, dataOf, makeInput } from '../support/inputs';
import { seededTest } from '../support/seeded';
import { bytesOf } from '../support/tensors';

// Longer than what one unit of work writes to the cache of the open segment (2 M elements of keys and values).
seededTest('a segment of 9,000 tokens in one call gives the bits of many small calls', async (rng) => {
  using device = openTestDevice();
  const config = { heads: 1, headDim: 128, segmentLength: 9000 };
  using whole = device.createStream(config);
  using parts = device.createStream(config);
  const input = makeInput(whole.config, 9000, rng);
  const output = bytesOf(await whole.attend(dataOf(input)));
  const pieces = cut(input, rng.pieces(9000, 2500));
  expect(pieces.length).toBeGreaterThan(3);
  const joined = [];
  for (const piece of pieces) joined.push(bytesOf(await parts.attend(dataOf(piece))));
  if (onCuda) {
    const wanted = Float64Array.from(new Float32Array(Uint8Array.from(output).buffer));
    const actual = Float64Array.from(new Float32Array(Uint8Array.from(Buffer.concat(joined)).buffer));
    const [error] = errorsByHead(actual, wanted, 1, 128);
    expect(error).toBeLessThanOrEqual(allowedErrors({ dtype: 'float32', wanted, heads: 1, dim: 128 })[0]);
  } else {
    expect(Buffer.concat(joined).equals(output)).toBe(true);
  }
  expect(whole.segments).toBe(1);
  expect(bytesOf(parts.memory().matrix).equals(bytesOf(whole.memory().matrix))).toBe(true);
});

import { BFLOAT16, decodeHalf, encodeHalf, FLOAT16, type HalfFormat } from './half';

describe.each([FLOAT16, BFLOAT16])('$name', (format: HalfFormat) => {
  const isNaNPattern = (bits: number) => (bits & 0x7fff) > format.infinity;

  test('all 65,536 patterns survive decoding and encoding', () => {
    let numbers = 0;
    for (let bits = 0; bits < 65536; bits++) {
      const value = decodeHalf(bits, format);
      if (isNaNPattern(bits)) {
        if (!Number.isNaN(value)) throw new Error(`0x${bits.toString(16)} decodes to ${value}, not NaN`);
        continue;
      }
      const again = encodeHalf(value, format);
      if (again !== bits) throw new Error(`0x${bits.toString(16)} -> ${value} -> 0x${again.toString(16)}`);
      numbers++;
    }
    expect(numbers).toBe(2 * (format.infinity + 1));
    expect(isNaNPattern(encodeHalf(Number.NaN, format))).toBe(true);
  });

  test('every midpoint goes to the even neighbour and anything beside it to the nearer one', () => {
    let midpoints = 0;
    for (let bits = 0; bits + 1 < format.infinity; bits++) {
      const low = decodeHalf(bits, format);
      const high = decodeHalf(bits + 1, format);
      const middle = (low + high) / 2;
      const step = (high - low) / 1024;
      const even = bits % 2 === 0 ? bits : bits + 1;
      const got = [middle - step, middle, middle + step, -middle].map((x) => encodeHalf(x, format));
      const want = [bits, even, bits + 1, even | 0x8000];
      if (got.join() !== want.join()) throw new Error(`near ${middle}: ${got} instead of ${want}`);
      midpoints++;
    }
    expect(midpoints).toBe(format.infinity - 1);
  });

  test('numbers from half a step beyond the largest are Infinity', () => {
    const largest = decodeHalf(format.infinity - 1, format);
    const step = largest - decodeHalf(format.infinity - 2, format);
    expect(encodeHalf(largest + step / 2, format)).toBe(format.infinity);
    expect(encodeHalf(-(largest + step / 2), format)).toBe(0x8000 | format.infinity);
    expect(encodeHalf(largest + step * 0.499, format)).toBe(format.infinity - 1);
    expect(encodeHalf(1e300, format)).toBe(format.infinity);
  });
});

test('known patterns of both formats', () => {
  expect(encodeHalf(1, FLOAT16)).toBe(0x3c00);
  expect(encodeHalf(-2, FLOAT16)).toBe(0xc000);
  expect(encodeHalf(65504, FLOAT16)).toBe(0x7bff);
  expect(encodeHalf(2 ** -24, FLOAT16)).toBe(0x0001);
  expect(encodeHalf(2 ** -25, FLOAT16)).toBe(0x0000);
  expect(encodeHalf(1 / 3, FLOAT16)).toBe(0x3555);
  expect(encodeHalf(1, BFLOAT16)).toBe(0x3f80);
  expect(encodeHalf(Math.PI, BFLOAT16)).toBe(0x4049);
  expect(encodeHalf(3.3895313892515355e38, BFLOAT16)).toBe(0x7f7f);
  expect(encodeHalf(-0, BFLOAT16)).toBe(0x8000);
});

test('a double is rounded once: just above a float16 midpoint it goes up, although its float32 is the midpoint', () => {
  const midpoint = 1 + 2 ** -11;
  const above = midpoint + 2 ** -40;
  expect(Math.fround(above)).toBe(midpoint);
  expect(encodeHalf(midpoint, FLOAT16)).toBe(0x3c00);
  expect(encodeHalf(above, FLOAT16)).toBe(0x3c01);
});

import { bytes, count, median, percent, plural, quantile, table } from '../../lib/cli/format';

test.each([
  [0, '0 B'],
  [999, '999 B'],
  [1000, '1.00 kB'],
  [110_000_000, '110 MB'],
  [999_499, '999 kB'],
  [999_600, '1.00 MB'],
  [99_960_000, '100 MB'],
  [12_345_678, '12.3 MB'],
  [6_192_051_200, '6.19 GB'],
])('%d bytes are %s', (value, text) => {
  expect(bytes(value)).toBe(text);
});

test('numbers', () => {
  expect(count(1_209_385)).toBe('1,209,385');
  expect(percent(0.12345)).toBe('12.3 %');
  expect([plural(1, 'head'), plural(16, 'head')]).toEqual(['1 head', '16 heads']);
});

test('quantiles', () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1])).toBe(2.5);
  expect(quantile([1, 2, 3, 4, 5], 0.9)).toBeCloseTo(4.6, 12);
  expect(median([])).toBeNaN();
});

test('a table aligns its columns and leaves no space at the end of a line', () => {
  const rows = [
    ['a', 'number'],
    ['long word', '1'],
    ['', ''],
  ];
  expect(table(rows, '<>')).toBe('  a          number\n  long word       1\n');
});

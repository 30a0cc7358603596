// The tokens that the decode benchmark times.

const { windowOf } = require('../../bench/gpu/window.cjs');

test.each([
  [2048, 101, 101],
  [512, 101, 101],
  [512, 100, 99],
  [64, 101, 59],
  [16, 101, 11],
  [9, 3, 3],
  [8, 101, 3],
  [7, 101, 1],
])('N=%i, at most %i: %i steps, half a segment in the mean, no border', (segment, most, steps) => {
  const window = windowOf(segment, most);
  expect(window.steps).toBe(steps);
  const first = window.before + window.warm; // tokens that the first timed step finds
  const last = first + window.steps - 1;
  expect(window.before).toBeGreaterThanOrEqual(0);
  expect((first + last) / 2).toBe(window.open);
  expect(window.open).toBe(Math.floor(segment / 2)); // kernel_bench's
  expect(last + 1).toBeLessThan(segment);
});

test('a segment without room is refused', () => {
  expect(() => windowOf(5, 101)).toThrow(/too short/);
});

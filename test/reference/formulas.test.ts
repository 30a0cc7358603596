import { gateWeights, rotate, sigma } from './formulas';

test('sigma is x + 1 above zero and exp(x) below, meeting at 1', () => {
  expect([3, 0.5, 0, -1, -40].map(sigma)).toEqual([4, 1.5, 1, Math.exp(-1), Math.exp(-40)]);
});

test('sigma keeps its relative precision far below zero and is exactly 0 below -87', () => {
  expect(sigma(-80) / 1.8048513878454153e-35).toBeCloseTo(1, 12);
  expect(sigma(-87)).toBeGreaterThan(0);
  expect(sigma(-87.00001)).toBe(0);
  expect(sigma(-1e30)).toBe(0);
});

test('the gate weights are sigmoid(beta) and its complement, both precise at large beta', () => {
  expect(gateWeights(0)).toEqual({ memory: 0.5, local: 0.5 });
  expect(gateWeights(Math.log(3)).memory).toBeCloseTo(0.75, 14);
  expect(gateWeights(Math.log(3)).local).toBeCloseTo(0.25, 14);
  expect(gateWeights(50).local / Math.exp(-50)).toBeCloseTo(1, 12);
  expect(gateWeights(-50).memory / Math.exp(-50)).toBeCloseTo(1, 12);
});

test('rotation turns the pair (i, i + d/2) by position * theta^(-2i/d)', () => {
  const turned = new Float64Array(4);
  rotate(Float64Array.of(1, 0, 0, 1), 0, turned, 0, 4, 3, 10_000);
  // Pair (0, 2) = (1, 0) turns by 3; pair (1, 3) = (0, 1) turns by 3 / 100.
  const want = [Math.cos(3), -Math.sin(0.03), Math.sin(3), Math.cos(0.03)];
  for (const [i, x] of want.entries()) expect(turned[i]).toBeCloseTo(x, 14);
});

test('the product of two rotated vectors depends on the distance of their positions alone', () => {
  const a = Float64Array.of(0.3, -1.2, 0.7, 2.1);
  const b = Float64Array.of(1.1, 0.4, -0.6, 0.9);
  const dot = (positionA: number, positionB: number) => {
    const [x, y] = [new Float64Array(4), new Float64Array(4)];
    rotate(a, 0, x, 0, 4, positionA, 100);
    rotate(b, 0, y, 0, 4, positionB, 100);
    return x.reduce((sum, value, i) => sum + value * y[i], 0);
  };
  expect(dot(7, 4)).toBeCloseTo(dot(1003, 1000), 10);
  expect(Math.abs(dot(7, 4) - dot(7, 5))).toBeGreaterThan(0.01);
});

import type { Shape } from './work';

/** What a stream held before a segment, and the segment's rows, of one head: as numbers. */
export interface HeadSegment {
  q: Float32Array;
  k: Float32Array;
  v: Float32Array;
  matrix: ArrayLike<number>;
  normalizer: ArrayLike<number>;
}

const sigma = (x: number) => (x > 0 ? x + 1 : Math.exp(x));

/** The output of one token of a segment in float64, for a gate of 0: half retrieved, half local (arXiv 2404.07143, eq. 3 to 6, 10). */
export function outputOf(
  { q, k, v, matrix, normalizer }: HeadSegment,
  { headDim: d }: Shape,
  token: number,
): Float64Array {
  const row = (rows: Float32Array, t: number) => rows.subarray(t * d, (t + 1) * d);
  const query = row(q, token);
  const scores = Float64Array.from({ length: token + 1 }, (_, t) => {
    const key = row(k, t);
    return query.reduce((sum, x, i) => sum + x * key[i], 0) / Math.sqrt(d);
  });
  const top = scores.reduce((a, b) => Math.max(a, b));
  const weights = scores.map((score) => Math.exp(score - top));
  const mass = weights.reduce((a, b) => a + b, 0);
  const features = Float64Array.from(query, sigma);
  const weight = features.reduce((sum, x, i) => sum + x * normalizer[i], 0);
  return Float64Array.from({ length: d }, (_, j) => {
    const local = weights.reduce((sum, w, t) => sum + w * v[t * d + j], 0) / mass;
    const read = features.reduce((sum, x, i) => sum + x * matrix[i * d + j], 0) / weight;
    return (local + read) / 2;
  });
}

/** The memory and normaliser of one head after a segment in float64 (eq. 8 or 9, and 4). */
export function absorbed(
  { k, v, matrix, normalizer }: HeadSegment,
  { headDim: d, segment, rule }: Shape,
): { matrix: Float64Array; normalizer: Float64Array } {
  const next = { matrix: Float64Array.from(matrix), normalizer: Float64Array.from(normalizer) };
  const read = new Float64Array(d);
  for (let t = 0; t < segment; t++) {
    const features = Float64Array.from(k.subarray(t * d, (t + 1) * d), sigma);
    read.fill(0);
    if (rule === 'delta') {
      const weight = features.reduce((sum, x, i) => sum + x * normalizer[i], 0);
      for (const [i, x] of features.entries())
        for (let j = 0; j < d; j++) read[j] += (x * matrix[i * d + j]) / weight;
    }
    for (const [i, x] of features.entries()) {
      for (let j = 0; j < d; j++) next.matrix[i * d + j] += x * (v[t * d + j] - read[j]);
      next.normalizer[i] += x;
    }
  }
  return next;
}

/** |actual - wanted| / |wanted| */
export function relativeError(actual: ArrayLike<number>, wanted: ArrayLike<number>): number {
  let error = 0;
  let norm = 0;
  for (let i = 0; i < wanted.length; i++) {
    error += (actual[i] - wanted[i]) ** 2;
    norm += wanted[i] ** 2;
  }
  return Math.sqrt(error / norm);
}

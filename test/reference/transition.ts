import { sigma } from './formulas';

/**
 * A and B of a part of a text, one head, as the formulas say: each segment takes M to M + S^T (V - D^-1 S M) with
 * S = sigma(K) and D = diag(S z), so that A <- (I - S^T D^-1 S) A and B <- (I - S^T D^-1 S) B + S^T V. A row of S
 * whose product with z is 0 reads nothing.
 */
export interface ReferenceTransition {
  A: Float64Array; // [dk, dk]
  B: Float64Array; // [dk, dv]
  normalizer: Float64Array; // [dk], of the part
}

export interface ReferencePart {
  rule: 'linear' | 'delta';
  dk: number;
  dv: number;
  segmentLength: number;
  k: Float64Array; // [tokens, dk]
  v: Float64Array; // [tokens, dv]
  before: Float64Array; // [dk]
}

export function referenceTransition(part: ReferencePart): ReferenceTransition {
  const { rule, dk, dv, segmentLength, k, v, before } = part;
  const z = before.slice();
  let A = Float64Array.from({ length: dk * dk }, (_, i) => (i % (dk + 1) === 0 ? 1 : 0));
  let B = new Float64Array(dk * dv);
  const tokens = k.length / dk;
  for (let first = 0; first < tokens; first += segmentLength) {
    const S = k.slice(first * dk, (first + segmentLength) * dk).map(sigma);
    const V = v.slice(first * dv, (first + segmentLength) * dv);
    const step = new Float64Array(dk * dk);
    const written = new Float64Array(dk * dv);
    for (let i = 0; i < dk; i++) step[i * dk + i] = 1;
    for (let t = 0; t < segmentLength; t++) {
      const row = S.subarray(t * dk, (t + 1) * dk);
      const mass = row.reduce((sum, s, i) => sum + s * z[i], 0);
      const share = rule === 'delta' && mass > 0 ? 1 / mass : 0;
      for (let i = 0; i < dk; i++) {
        for (let j = 0; j < dk; j++) step[i * dk + j] -= row[i] * share * row[j];
        for (let j = 0; j < dv; j++) written[i * dv + j] += row[i] * V[t * dv + j];
      }
    }
    A = multiply(step, A, dk, dk);
    B = multiply(step, B, dk, dv).map((number, i) => number + written[i]);
    for (let i = 0; i < S.length; i++) z[i % dk] += S[i];
  }
  return { A, B, normalizer: z.map((sum, i) => sum - before[i]) };
}

/** [rows, inner] times [inner, columns]. */
export function multiply(left: Float64Array, right: Float64Array, inner: number, columns: number) {
  const rows = left.length / inner;
  const result = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let j = 0; j < columns; j++) {
      let sum = 0;
      for (let i = 0; i < inner; i++) sum += left[row * inner + i] * right[i * columns + j];
      result[row * columns + j] = sum;
    }
  }
  return result;
}

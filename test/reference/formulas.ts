/** The scalar formulas of the paper, in float64. */

// Looked up once: globals are slow under jest, and long streams call a hundred million times.
const { exp, cos, sin } = Math;

/** ELU(x) + 1, computed by branch: exp(x) keeps its digits where ELU(x) + 1 would round them away. */
export function sigma(x: number): number {
  if (x > 0) return x + 1;
  return x < -87 ? 0 : exp(x);
}

/** Weights of the memory and of the local attention: sigmoid(beta) and 1 - sigmoid(beta). */
export function gateWeights(beta: number): { memory: number; local: number } {
  return { memory: 1 / (1 + exp(-beta)), local: 1 / (1 + exp(beta)) };
}

/** Rotates the pairs (i, i + d/2) of one head vector by position * theta^(-2i/d), as in Llama. */
export function rotate(
  from: Float64Array,
  fromOffset: number,
  to: Float64Array,
  toOffset: number,
  dim: number,
  position: number,
  theta: number,
): void {
  const half = dim / 2;
  for (let i = 0; i < half; i++) {
    const angle = position * theta ** ((-2 * i) / dim);
    const c = cos(angle);
    const s = sin(angle);
    const a = from[fromOffset + i];
    const b = from[fromOffset + i + half];
    to[toOffset + i] = a * c - b * s;
    to[toOffset + i + half] = b * c + a * s;
  }
}

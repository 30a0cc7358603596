import { gateWeights, rotate, sigma } from './formulas';

// See formulas.ts.
const { abs, exp, floor, sqrt } = Math;

/** What a stream computes, as plain as the formulas allow. The native code is never consulted. */
export interface ReferenceConfig {
  heads: number;
  kvHeads?: number;
  headDim: number;
  valueDim?: number;
  segmentLength?: number;
  rule?: 'linear' | 'delta';
  gate?: number | ArrayLike<number>;
  scale?: number;
  rope?: { theta: number } | null;
  emptyRead?: 'gated' | 'local';
}

export interface ReferenceResult {
  /** [tokens, heads, valueDim] */
  output: Float64Array;
  /** The largest |logit| that each query head met during the call. */
  maxLogit: Float64Array;
}

export class ReferenceStream {
  tokens = 0;
  segments = 0;

  private readonly heads: number;
  private readonly kvHeads: number;
  private readonly dk: number;
  private readonly dv: number;
  private readonly segmentLength: number;
  private readonly rule: 'linear' | 'delta';
  private readonly scale: number;
  private readonly theta: number | null;
  private readonly localWhenEmpty: boolean;
  private readonly gates: { memory: number; local: number }[];

  private readonly matrix: Float64Array; // M: [kvHeads, dk, dv]
  private readonly normalizer: Float64Array; // z: [kvHeads, dk]

  // The open segment: keys, keys rotated for local attention, values. [segmentLength, kvHeads, dk or dv]
  private readonly keys: Float64Array;
  private readonly rotatedKeys: Float64Array;
  private readonly values: Float64Array;

  // Work space of one token.
  private readonly query: Float64Array;
  private readonly weights: Float64Array;
  private readonly sigmas: Float64Array;
  private readonly local: Float64Array; // A_dot
  private readonly read: Float64Array; // A_mem

  constructor(config: ReferenceConfig) {
    const { heads, headDim, gate = 0 } = config;
    this.heads = heads;
    this.kvHeads = config.kvHeads ?? heads;
    this.dk = headDim;
    this.dv = config.valueDim ?? headDim;
    this.segmentLength = config.segmentLength ?? 2048;
    this.rule = config.rule ?? 'delta';
    this.scale = config.scale ?? 1 / sqrt(headDim);
    this.theta = config.rope?.theta ?? null;
    this.localWhenEmpty = config.emptyRead === 'local';
    this.gates = Array.from({ length: heads }, (_, h) =>
      gateWeights(typeof gate === 'number' ? gate : gate[h]),
    );
    this.matrix = new Float64Array(this.kvHeads * this.dk * this.dv);
    this.normalizer = new Float64Array(this.kvHeads * this.dk);
    this.keys = new Float64Array(this.segmentLength * this.kvHeads * this.dk);
    this.rotatedKeys = this.theta === null ? this.keys : new Float64Array(this.keys.length);
    this.values = new Float64Array(this.segmentLength * this.kvHeads * this.dv);
    this.query = new Float64Array(this.dk);
    this.weights = new Float64Array(this.segmentLength);
    this.sigmas = new Float64Array(this.dk);
    this.local = new Float64Array(this.dv);
    this.read = new Float64Array(this.dv);
  }

  attend({ q, k, v }: { q: Float64Array; k: Float64Array; v: Float64Array }): ReferenceResult {
    const { heads, dk, dv } = this;
    const tokens = q.length / (heads * dk);
    const output = new Float64Array(tokens * heads * dv);
    const maxLogit = new Float64Array(heads);
    for (let t = 0; t < tokens; t++) {
      const position = this.tokens % this.segmentLength;
      this.cache(k, v, t, position);
      for (let h = 0; h < heads; h++) {
        const row = t * heads + h;
        const largest = this.attendLocally(q, row * dk, this.kvHeadOf(h), position);
        if (largest > maxLogit[h]) maxLogit[h] = largest;
        this.retrieveRow(q, row * dk, this.kvHeadOf(h));
        this.mix(h, output, row * dv);
      }
      this.tokens++;
      if (position + 1 === this.segmentLength) this.absorb();
    }
    return { output, maxLogit };
  }

  retrieve({ q }: { q: Float64Array }): Float64Array {
    const { heads, dk, dv } = this;
    const rows = q.length / dk;
    const output = new Float64Array(rows * dv);
    for (let row = 0; row < rows; row++) {
      this.retrieveRow(q, row * dk, this.kvHeadOf(row % heads));
      output.set(this.read, row * dv);
    }
    return output;
  }

  memory(): { matrix: Float64Array; normalizer: Float64Array } {
    return { matrix: this.matrix.slice(), normalizer: this.normalizer.slice() };
  }

  private kvHeadOf(head: number): number {
    return floor(head / (this.heads / this.kvHeads));
  }

  /** Adds the token to the open segment. */
  private cache(k: Float64Array, v: Float64Array, t: number, position: number): void {
    const { kvHeads, dk, dv, keys, values, rotatedKeys, theta } = this;
    for (let i = 0; i < kvHeads * dk; i++) keys[position * kvHeads * dk + i] = k[t * kvHeads * dk + i];
    for (let j = 0; j < kvHeads * dv; j++) values[position * kvHeads * dv + j] = v[t * kvHeads * dv + j];
    if (theta === null) return;
    for (let kv = 0; kv < kvHeads; kv++) {
      const key = (position * kvHeads + kv) * dk;
      rotate(keys, key, rotatedKeys, key, dk, position, theta);
    }
  }

  /** A_dot = softmax(scale q k^T) v over the open segment up to this position. Returns the largest |logit|. */
  private attendLocally(q: Float64Array, at: number, kv: number, position: number): number {
    const { kvHeads, dk, dv, scale, theta, query, rotatedKeys, values, weights, local } = this;
    if (theta === null) for (let i = 0; i < dk; i++) query[i] = q[at + i];
    else rotate(q, at, query, 0, dk, position, theta);

    let largest = 0;
    let max = Number.NEGATIVE_INFINITY;
    for (let p = 0; p <= position; p++) {
      const key = (p * kvHeads + kv) * dk;
      let dot = 0;
      for (let i = 0; i < dk; i++) dot += query[i] * rotatedKeys[key + i];
      const logit = dot * scale;
      weights[p] = logit;
      if (logit > max) max = logit;
      if (abs(logit) > largest) largest = abs(logit);
    }
    let sum = 0;
    for (let p = 0; p <= position; p++) {
      weights[p] = exp(weights[p] - max);
      sum += weights[p];
    }
    local.fill(0);
    for (let p = 0; p <= position; p++) {
      const value = (p * kvHeads + kv) * dv;
      const weight = weights[p] / sum;
      for (let j = 0; j < dv; j++) local[j] += weight * values[value + j];
    }
    return largest;
  }

  /** A_mem = sigma(x) M / (sigma(x) . z), exactly 0 where every product sigma(x)_i z_i is 0. */
  private retrieveRow(x: Float64Array, at: number, kv: number): void {
    const { dk, dv, matrix, normalizer, sigmas, read } = this;
    read.fill(0);
    if (this.segments === 0) return;
    let denominator = 0;
    for (let i = 0; i < dk; i++) {
      sigmas[i] = sigma(x[at + i]);
      denominator += sigmas[i] * normalizer[kv * dk + i];
    }
    if (denominator === 0) return;
    for (let i = 0; i < dk; i++) {
      const row = (kv * dk + i) * dv;
      for (let j = 0; j < dv; j++) read[j] += sigmas[i] * matrix[row + j];
    }
    for (let j = 0; j < dv; j++) read[j] /= denominator;
  }

  /** A = sigmoid(beta) A_mem + (1 - sigmoid(beta)) A_dot */
  private mix(head: number, output: Float64Array, at: number): void {
    const { dv, local, read } = this;
    const ungated = this.segments === 0 && this.localWhenEmpty;
    const weight = ungated ? { memory: 0, local: 1 } : this.gates[head];
    for (let j = 0; j < dv; j++) output[at + j] = weight.memory * read[j] + weight.local * local[j];
  }

  /** M += sigma(K)^T (V - read), z += sum of sigma(K). All tokens of the segment read the M and z before it. */
  private absorb(): void {
    const { kvHeads, dk, dv, segmentLength, keys, values, read, matrix, normalizer } = this;
    const matrixSum = new Float64Array(matrix.length);
    const normalizerSum = new Float64Array(normalizer.length);
    for (let p = 0; p < segmentLength; p++) {
      for (let kv = 0; kv < kvHeads; kv++) {
        const key = (p * kvHeads + kv) * dk;
        const value = (p * kvHeads + kv) * dv;
        if (this.rule === 'delta') this.retrieveRow(keys, key, kv);
        else read.fill(0);
        for (let i = 0; i < dk; i++) {
          const s = sigma(keys[key + i]);
          normalizerSum[kv * dk + i] += s;
          const row = (kv * dk + i) * dv;
          for (let j = 0; j < dv; j++) matrixSum[row + j] += s * (values[value + j] - read[j]);
        }
      }
    }
    for (let i = 0; i < matrix.length; i++) matrix[i] += matrixSum[i];
    for (let i = 0; i < normalizer.length; i++) normalizer[i] += normalizerSum[i];
    this.segments++;
  }
}

/** Chooses the next token from logits. */
export type Sampler = (logits: Float32Array) => number;

/** The largest logit's token, the lowest of equals. */
export const greedy: Sampler = (logits) => {
  let best = 0;
  for (let token = 1; token < logits.length; token++) {
    if ((logits[token] as number) > (logits[best] as number)) best = token;
  }
  return best;
};

/** Uniform in [0, 1) from a 32-bit seed (mulberry32): the same numbers on every machine. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Samples from softmax(logits / temperature), restricted to the `topK` largest. */
export function sampling(temperature: number, topK: number, seed: number): Sampler {
  const random = randomNumbers(seed);
  return (logits) => {
    const tokens = Array.from(logits.keys());
    if (topK < logits.length) {
      tokens.sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b);
      tokens.length = topK;
    }
    const top = tokens.reduce((most, token) => Math.max(most, logits[token] as number), -Infinity);
    const weights = tokens.map((token) => Math.exp(((logits[token] as number) - top) / temperature));
    let rest = random() * weights.reduce((sum, weight) => sum + weight, 0);
    for (const [i, weight] of weights.entries()) {
      rest -= weight;
      if (rest < 0) return tokens[i] as number;
    }
    return tokens[tokens.length - 1] as number; // rounding
  };
}

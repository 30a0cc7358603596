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
    const tokens = likeliest(logits, topK);
    const top = tokens.reduce((most, token) => Math.max(most, logits[token] as number), -Infinity);
    const weights = Float64Array.from(tokens, (token) =>
      Math.exp(((logits[token] as number) - top) / temperature),
    );
    let rest = random() * weights.reduce((sum, weight) => sum + weight, 0);
    for (const [i, weight] of weights.entries()) {
      rest -= weight;
      if (rest < 0) return tokens[i] as number;
    }
    return tokens[tokens.length - 1] as number; // rounding
  };
}

/** The tokens of the `count` largest logits, the lower token of equals, in ascending order. */
function likeliest(logits: Float32Array, count: number): Int32Array {
  if (count >= logits.length) return Int32Array.from(logits.keys());
  const least = logits.slice().sort()[logits.length - count] as number; // a typed array sorts without callbacks
  const tokens = new Int32Array(count);
  let room = count;
  for (const logit of logits) if (logit > least) room--; // what is left for those that equal the least
  let found = 0;
  for (const [token, logit] of logits.entries()) {
    if (logit > least || (logit === least && room-- > 0)) tokens[found++] = token;
  }
  return tokens;
}

/** Guessing digits is right one time in ten. */
export const CHANCE = 0.1;
/** A control this unlikely under guessing is no guess: it has failed. */
export const ALARM = 1e-6;

export interface Score {
  keys: number;
  keysRight: number;
  digits: number;
  digitsRight: number;
  /** The probability that guessing gets at least as many digits right. */
  byChance: number;
}

export const sameDigits = (a: string, b: string): number =>
  [...a].filter((digit, i) => digit === b[i]).length;

export function score(hidden: string[], read: string[]): Score {
  const right = hidden.map((key, i) => sameDigits(key, read[i]));
  const digits = hidden.join('').length;
  const digitsRight = right.reduce((sum, n) => sum + n, 0);
  return {
    keys: hidden.length,
    keysRight: hidden.filter((key, i) => key === read[i]).length,
    digits,
    digitsRight,
    byChance: binomialTail(digits, digitsRight, CHANCE),
  };
}

/** P(at least k of n), each with probability p. */
export function binomialTail(n: number, k: number, p: number): number {
  let term = (1 - p) ** n;
  let below = 0;
  let tail = 0;
  for (let i = 0; i <= n; i++) {
    if (i < k) below += term;
    else tail += term;
    term *= ((n - i) / (i + 1)) * (p / (1 - p));
  }
  return Math.min(1, k === 0 ? 1 : tail > 0 ? tail : 1 - below);
}

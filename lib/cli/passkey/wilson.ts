/** The 97.5th percentile of the normal distribution: intervals of 95 %. */
const Z = 1.959963984540054;

/**
 * Wilson's score interval for a share seen in n trials. The trials here are keys, not digits: whoever misses one digit of
 * a key is likelier to miss the others. The share may then be a mean of shares; such a mean varies no more than one of
 * zeros and ones, so that the interval is rather too wide.
 */
export function wilson(share: number, n: number): [low: number, high: number] {
  const z2 = (Z * Z) / n;
  const centre = (share + z2 / 2) / (1 + z2);
  const half = (Z * Math.sqrt((share * (1 - share)) / n + z2 / (4 * n))) / (1 + z2);
  // Exact at the ends, where rounding would not be.
  return [share === 0 ? 0 : centre - half, share === 1 ? 1 : centre + half];
}

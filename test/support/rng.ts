// Looked up once: globals are slow under jest.
const { imul, sqrt, log, cos, floor, min, PI } = Math;

/** A small seeded generator (mulberry32): the same seed gives the same test on every machine. */
export class Rng {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** A whole number in [0, 2^32). */
  bits(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** A number in [low, high). */
  uniform(low = 0, high = 1): number {
    return low + (high - low) * (this.bits() / 2 ** 32);
  }

  /** A whole number in [low, high], both included. */
  int(low: number, high: number): number {
    return low + floor((high - low + 1) * (this.bits() / 2 ** 32));
  }

  /** A number of the standard normal distribution (Box and Muller). */
  normal(): number {
    return sqrt(-2 * log(1 - this.uniform())) * cos(2 * PI * this.uniform());
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.int(0, choices.length - 1)];
  }

  /** Cuts a total into pieces of 1 to `largest`. */
  pieces(total: number, largest: number): number[] {
    const pieces: number[] = [];
    for (let rest = total; rest > 0; ) {
      const piece = this.int(1, min(rest, largest));
      pieces.push(piece);
      rest -= piece;
    }
    return pieces;
  }
}

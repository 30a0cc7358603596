import { hashText, mix } from '../random';

/**
 * q, k and v as fixed functions of the text. Nothing here is learned.
 *
 * value  The code of the NEXT symbol: one random sign for each component of each head.
 * key    -40 in every component, so that sigma(k) = e^-40, about 4e-18: a million such keys weigh nothing. Only where the
 *        text so far ends in `marker label is digits...` is one component per head 0, so that sigma = 1. Which one is a
 *        hash of those symbols, another hash in each head: where two contexts collide in one head, the others
 *        outvote it.
 * query  The same function of the text as the key.
 *
 * A trained model has to learn such keys; here they are given, to show what the memory does with them.
 */
export const CLOSED = -40;
export const OPEN = 0;

const LONGEST_LABEL = 16;

/** The symbols that a key hashes if the text so far opens one, else null. */
export function contextAt(past: string, marker: string, digits: number): string | null {
  const window = past.slice(-(marker.length + LONGEST_LABEL + ' is '.length + digits));
  const at = window.lastIndexOf(marker);
  if (at < 0) return null;
  const label = /^([a-z]{1,16}) is (\d*)$/.exec(window.slice(at + marker.length));
  return label && label[2].length < digits ? window.slice(at) : null;
}

export interface Opening {
  token: number;
  context: string;
}

/** Every token of the text whose key opens: `contextAt` for each prefix, found from the markers alone. */
export function openings(text: string, marker: string, digits: number): Opening[] {
  const found: Opening[] = [];
  for (let at = text.indexOf(marker); at >= 0; at = text.indexOf(marker, at + 1)) {
    const reach = at + marker.length + LONGEST_LABEL + ' is '.length + digits;
    for (let end = at + marker.length; end <= Math.min(reach, text.length); end++) {
      const past = text.slice(at, end);
      if (past.lastIndexOf(marker) > 0) break; // a later marker takes over
      const context = contextAt(past, marker, digits);
      if (context !== null) found.push({ token: end - 1, context });
    }
  }
  return found;
}

export interface FeatureShape {
  heads: number;
  headDim: number;
  valueDim: number;
}

export class Features {
  readonly shape: FeatureShape;
  readonly #seed: number;
  readonly #codes: Float32Array[] = [];

  constructor(shape: FeatureShape, seed: number) {
    this.shape = shape;
    this.#seed = seed;
  }

  /** The open component of one head's key. */
  slot(context: string, head: number): number {
    return hashText(context, mix(this.#seed ^ (head + 1))) % this.shape.headDim;
  }

  /** Sets the open components of one token's key or query row ([heads, headDim]). */
  mark(row: Float32Array, context: string, value: number): void {
    const { heads, headDim } = this.shape;
    for (let head = 0; head < heads; head++) row[head * headDim + this.slot(context, head)] = value;
  }

  /** The code of a symbol (a UTF-16 unit): random signs, [heads, valueDim]. */
  code(symbol: number): Float32Array {
    let code = this.#codes[symbol];
    if (code === undefined) {
      code = new Float32Array(this.shape.heads * this.shape.valueDim);
      let bits = 0;
      for (let i = 0; i < code.length; i++) {
        bits = i % 32 === 0 ? mix(mix(this.#seed + symbol) + i) : bits >>> 1;
        code[i] = bits & 1 ? 1 : -1;
      }
      this.#codes[symbol] = code;
    }
    return code;
  }
}

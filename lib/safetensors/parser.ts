import { type InfiniError, mismatch, quote } from '../errors';

// The format: 8 bytes with the header's length, the header in JSON, the data. The header is
// {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [BEGIN, END]}, ..., "__metadata__": {"KEY": "TEXT"}}.

/** A tensor of a file, and where its bytes lie. */
export interface StoredTensor {
  dtype: string;
  shape: number[];
  begin: number;
  end: number;
}

/** What a header says. Bytes are counted from the beginning of the data. */
export interface Header {
  tensors: Map<string, StoredTensor>;
  metadata: Map<string, string>;
}

/** Makes the error for "expected X but received V". */
export type Refuse = (message: string) => InfiniError;

/** The format's own limit. */
const MOST_HEADER_BYTES = 100_000_000;
/** PyTorch's limit; the format has none. */
const MOST_DIMENSIONS = 64;
/** The largest model here has 11,267 tensors; a header of millions would hold up the event loop for half a minute. */
const MOST_NAMES = 20_000;

/** Bytes of one element; 0 where it is less than one. */
const elementBytes = new Map<string, number>(
  Object.entries({
    ...{ BOOL: 1, U8: 1, I8: 1, F8_E5M2: 1, F8_E4M3: 1, F8_E8M0: 1, F8_E4M3FNUZ: 1, F8_E5M2FNUZ: 1 },
    ...{ I16: 2, U16: 2, F16: 2, BF16: 2 },
    ...{ I32: 4, U32: 4, F32: 4 },
    ...{ F64: 8, I64: 8, U64: 8, C64: 8 },
    ...{ F4: 0, F6_E2M3: 0, F6_E3M2: 0 },
  }),
);

/** Where the data of a file of `size` bytes begin, from its first 8. */
export function dataBegin(first: Uint8Array, size: number, refuse: Refuse): number {
  const length = new DataView(first.buffer, first.byteOffset, 8).getBigUint64(0, true);
  if (length < 1n || length > MOST_HEADER_BYTES) {
    throw refuse(mismatch(`1 to ${MOST_HEADER_BYTES} bytes`, "the header's length", Number(length)));
  }
  const begin = 8 + Number(length);
  if (begin <= size) return begin;
  const what = `at least ${begin} bytes, where the header ends,`;
  throw refuse(mismatch(what, 'the file', size, 'it is truncated or not a safetensors file'));
}

/** The header of a file with so many bytes of data: refused unless each of them belongs to exactly one tensor. */
export function parseHeader(bytes: Uint8Array, dataLength: number, refuse: Refuse): Header {
  const header = new HeaderParser(decodeText(bytes, refuse, true), dataLength, refuse).header();
  checkCover(header.tensors, dataLength, refuse);
  return header;
}

/** UTF-8 alone. A byte order mark is dropped unless it is to be seen. */
export function decodeText(bytes: Uint8Array, refuse: Refuse, showMark = false): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: showMark }).decode(bytes);
  } catch {
    throw refuse('expected text in UTF-8 but received other bytes');
  }
}

/**
 * A parser of its own, because it sees what JSON.parse hides: names given twice, and integers written as other numbers.
 * And it stops at the first defect, where JSON.parse may take a minute and gigabytes over 100 MB of '['.
 */
class HeaderParser {
  readonly #text: string;
  readonly #dataLength: number;
  readonly #refuse: Refuse;
  #at = 0;
  /** The names around the place that is read: of a tensor, and of a key in it. */
  readonly #path: string[] = [];

  constructor(text: string, dataLength: number, refuse: Refuse) {
    this.#text = text;
    this.#dataLength = dataLength;
    this.#refuse = refuse;
  }

  header(): Header {
    const tensors = new Map<string, StoredTensor>();
    const metadata = new Map<string, string>();
    if (this.#text[0] !== '{') throw this.#wrong("'{' as the first character");
    this.#members((key) => {
      if (key === '__metadata__') this.#members((name) => metadata.set(name, this.#string()));
      else tensors.set(key, this.#tensor());
    });
    if (this.#next() !== undefined) throw this.#wrong('nothing but white space at the end');
    return { tensors, metadata };
  }

  #tensor(): StoredTensor {
    let dtype: string | undefined;
    let shape: number[] | undefined;
    let offsets: number[] | undefined;
    this.#members((key) => {
      if (key === 'dtype') dtype = this.#string();
      else if (key === 'shape') shape = this.#integers(MOST_DIMENSIONS);
      else if (key === 'data_offsets') offsets = this.#integers(2);
      else throw this.#wrongValue('only dtype, shape and data_offsets', key);
    });
    if (dtype === undefined) throw this.#wrongValue('a value', dtype, 'dtype');
    if (shape === undefined) throw this.#wrongValue('a value', shape, 'shape');
    if (offsets === undefined) throw this.#wrongValue('a value', offsets, 'data_offsets');
    return this.#checked(dtype, shape, offsets);
  }

  #checked(dtype: string, shape: number[], offsets: number[]): StoredTensor {
    const perElement = elementBytes.get(dtype);
    if (perElement === undefined) throw this.#wrongValue('a known type', dtype, 'dtype');
    if (perElement === 0) throw this.#wrongValue('a type of whole bytes', dtype, 'dtype');
    let bytes = perElement;
    for (const dimension of shape) {
      bytes *= dimension;
      if (!Number.isSafeInteger(bytes)) throw this.#wrongValue('a smaller tensor', shape, 'shape');
    }
    const [begin, end] = offsets;
    if (offsets.length !== 2 || begin > end || end > this.#dataLength) {
      const what = `two ascending integers from 0 to ${this.#dataLength}, the length of the data,`;
      throw this.#wrongValue(what, offsets, 'data_offsets');
    }
    if (end - begin !== bytes) {
      const what = `${bytes} bytes (${dtype} [${shape.join(', ')}])`;
      throw this.#wrongValue(what, end - begin, 'data_offsets');
    }
    return { dtype, shape, begin, end };
  }

  /** An object, whose values `readValue` reads. */
  #members(readValue: (key: string) => void): void {
    this.#take('{');
    const keys = new Set<string>();
    if (this.#next() === '}') this.#at++;
    else {
      do {
        const key = this.#string();
        if (keys.has(key)) {
          throw this.#refuse(`expected each name once in ${this.#place()} but received ${quote(key)} twice`);
        }
        if (keys.size === MOST_NAMES) throw this.#wrongValue(`at most ${MOST_NAMES} names`, key);
        keys.add(key);
        this.#take(':');
        this.#path.push(key);
        readValue(key);
        this.#path.pop();
      } while (this.#continues('}'));
    }
  }

  #integers(most: number): number[] {
    const integers: number[] = [];
    this.#take('[');
    if (this.#next() === ']') this.#at++;
    else {
      do {
        if (integers.length === most) throw this.#wrong(`at most ${most} integers`);
        integers.push(this.#integer());
      } while (this.#continues(']'));
    }
    return integers;
  }

  #integer(): number {
    this.#next();
    const word = this.#word();
    const value = /^(0|[1-9]\d*)$/.test(word) ? Number(word) : -1;
    if (value < 0 || !Number.isSafeInteger(value)) throw this.#wrong('integers from 0 to 2^53 - 1');
    this.#at += word.length;
    return value;
  }

  #string(): string {
    if (this.#next() !== '"') throw this.#wrong('a string');
    let end = this.#at + 1;
    while (end < this.#text.length && this.#text[end] !== '"') end += this.#text[end] === '\\' ? 2 : 1;
    let value: string;
    try {
      value = JSON.parse(this.#text.slice(this.#at, end + 1));
    } catch {
      throw this.#wrong('a string of JSON');
    }
    if (/\p{Surrogate}/u.test(value)) throw this.#wrong('a string of whole characters');
    this.#at = end + 1;
    return value;
  }

  #take(character: string): void {
    if (this.#next() !== character) throw this.#wrong(`'${character}'`);
    this.#at++;
  }

  /** Whether a comma follows, not the end. */
  #continues(close: string): boolean {
    const character = this.#next();
    if (character !== ',' && character !== close) throw this.#wrong(`',' or '${close}'`);
    this.#at++;
    return character === ',';
  }

  /** The next character that is not white space: it stays the next one. */
  #next(): string | undefined {
    while (this.#at < this.#text.length && ' \n\r\t'.includes(this.#text[this.#at])) this.#at++;
    return this.#text[this.#at];
  }

  /** What follows: a number or the like, or a piece of text. */
  #word(): string {
    word.lastIndex = this.#at;
    return word.exec(this.#text)?.[0] ?? '';
  }

  #place(key?: string): string {
    const [tensor, inner = key] = this.#path;
    if (tensor === undefined) return 'the header';
    const outer = tensor === '__metadata__' ? `"${tensor}"` : `tensor ${quote(tensor)}`;
    return inner === undefined ? outer : `${quote(inner)} of ${outer}`;
  }

  /** For the text that comes next. */
  #wrong(what: string): InfiniError {
    const found = this.#word();
    return this.#refuse(
      mismatch(what, this.#place(), found, found === '' ? 'the header ends here' : undefined),
    );
  }

  #wrongValue(what: string, value: unknown, key?: string): InfiniError {
    return this.#refuse(mismatch(what, this.#place(key), value));
  }
}

const word = /[\w.+-]+|.{0,24}/sy;

/** The data belong to exactly one tensor each, as the format demands: nothing can hide between or behind them. */
function checkCover(tensors: Map<string, StoredTensor>, dataLength: number, refuse: Refuse): void {
  const inOrder = [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let covered = 0;
  for (const [key, { begin, end }] of inOrder) {
    if (begin !== covered) {
      const what = `${covered}, where the data before it end,`;
      const why = begin < covered ? 'tensors overlap' : 'the data between belong to no tensor';
      throw refuse(mismatch(what, `the beginning of tensor ${quote(key)}`, begin, why));
    }
    covered = end;
  }
  if (covered !== dataLength) {
    const what = `${covered} bytes, where the last tensor ends,`;
    throw refuse(mismatch(what, 'the data', dataLength, 'the data behind it belong to no tensor'));
  }
}

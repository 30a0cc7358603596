import { fail } from '../errors';
import type { Refuse, StoredTensor } from '../safetensors/parser';
import type { Span } from '../shared-memory';
import { elementBytes } from '../tensor';
import type { DType, ResolvedConfig } from '../types';

// A snapshot is a safetensors file. Its metadata, in this order: the format, its version, the checksum, what it holds, the
// library that wrote it, and the facts of that kind. Its tensors: of each stream its image (native/core/image.h), that is z, M
// and the open segment's keys and values; in a session's the logits behind them. A state has one file and no other: there is
// nothing in it to choose, so a reader compares.

export const FORMAT = 'infini-stream';

/** Raised when a reader of the one before would not understand the file. */
export const VERSION = '1';

/** Of each kind of snapshot, and what else its metadata say. */
export const FACTS = {
  stream: ['tokens', 'config'],
  session: ['tokens', 'model', 'gates'],
} as const;
export type Kind = keyof typeof FACTS;
export type Facts<K extends Kind> = Readonly<Record<(typeof FACTS)[K][number], string>>;

export const metadataKeys = (kind: Kind): string[] => [
  'format',
  'version',
  'sha256',
  'kind',
  'library',
  ...FACTS[kind],
];

/** Where the characters of the checksum are: the format and the version before it have a length that is known. */
const opening = JSON.stringify({ __metadata__: { format: FORMAT, version: VERSION, sha256: '' } }).slice(
  0,
  -3,
);
export const CHECKSUM: Span = { begin: 8 + opening.length, end: 8 + opening.length + 64 };

export const refuse: Refuse = (message) => fail('ERR_SNAPSHOT', message.replace(/^e/, 'E'));

/** What the shapes of a stream's tensors follow from. */
export type StreamShape = Pick<
  ResolvedConfig,
  'kvHeads' | 'headDim' | 'valueDim' | 'segmentLength' | 'dtype'
>;

/** A stream of a snapshot; `prefix` goes before the names of its tensors. */
export interface Part {
  readonly prefix: string;
  readonly shape: StreamShape;
  readonly tokens: number;
}

/** Where everything lies, counted from the beginning of the data. */
export interface Layout {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Of each stream. */
  readonly images: readonly Span[];
  readonly bytes: number;
}

const storedTypes: Record<DType, string> = { float32: 'F32', bfloat16: 'BF16', float16: 'F16' };

export function layOut(parts: readonly Part[], logits = 0): Layout {
  const tensors = new Map<string, StoredTensor>();
  let end = 0;
  const add = (name: string, dtype: string, bytes: number, ...shape: number[]) => {
    const begin = end;
    end += shape.reduce((product, size) => product * size, bytes);
    tensors.set(name, { dtype, shape, begin, end });
  };
  const images = parts.map(({ prefix, shape, tokens }): Span => {
    const { kvHeads, headDim, valueDim, dtype } = shape;
    const open = tokens % shape.segmentLength;
    const begin = end;
    add(`${prefix}normalizer`, 'F64', 8, kvHeads, headDim);
    add(`${prefix}matrix`, 'F32', 4, kvHeads, headDim, valueDim);
    add(`${prefix}keys`, storedTypes[dtype], elementBytes(dtype), open, kvHeads, headDim);
    add(`${prefix}values`, storedTypes[dtype], elementBytes(dtype), open, kvHeads, valueDim);
    return { begin, end };
  });
  if (logits > 0) add('logits', 'F32', 4, logits);
  return { tensors, images, bytes: end };
}

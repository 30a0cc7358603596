import type { StoredTensor } from './parser';

/**
 * The beginning of a file, up to its data: the metadata and the tensors in the order given. Ends in spaces, so that the
 * data begin at a multiple of 8.
 */
export function formatHeader(
  metadata: Readonly<Record<string, string>>,
  tensors: ReadonlyMap<string, StoredTensor>,
): Buffer<ArrayBuffer> {
  const header: Record<string, unknown> = { __metadata__: metadata };
  for (const [name, { dtype, shape, begin, end }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [begin, end] };
  }
  const text = Buffer.from(JSON.stringify(header));
  const bytes = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8, ' ');
  bytes.writeBigUInt64LE(BigInt(bytes.length - 8));
  text.copy(bytes, 8);
  return bytes;
}

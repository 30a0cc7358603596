import { createHash } from 'node:crypto';
import { splitFile, withHeader } from '../support/tiny-model';

/** A snapshot taken apart without the code that is tested: its header's text, what it says, and its data. */
export function takeApart(bytes: Uint8Array) {
  const { header, data } = splitFile(Buffer.from(bytes));
  const { __metadata__: metadata, ...tensors } = JSON.parse(header) as {
    __metadata__: Record<string, string>;
  } & Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
  const dataOf = (name: string): Buffer => data.subarray(...tensors[name].data_offsets);
  return { header, data, metadata, tensors, dataOf };
}

/** SHA-256 of the file with 64 zeros where the checksum is, as the documentation says. */
export function checksumOf(file: Uint8Array): string {
  const bytes = Buffer.from(file);
  const at = bytes.indexOf('"sha256":"') + 10;
  bytes.fill('0', at, at + 64);
  return createHash('sha256').update(bytes).digest('hex');
}

/** A file of this header, whatever it says, with a right checksum, if it has one. */
export function sealed(header: string, data: Uint8Array): Buffer<ArrayBuffer> {
  const text = Buffer.from(header.trimEnd());
  const padding = Buffer.alloc(-text.length & 7, ' ');
  return reseal(withHeader(Buffer.concat([text, padding]), data));
}

export function reseal(file: Buffer<ArrayBuffer>): Buffer<ArrayBuffer> {
  const at = file.indexOf('"sha256":"');
  if (at >= 0 && at + 74 <= file.length) file.write(checksumOf(file), at + 10, 'latin1');
  return file;
}

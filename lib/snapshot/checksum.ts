import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { CHECKSUM } from './format';

/** A millisecond's worth. */
const SLICE = 2 ** 20;

/**
 * SHA-256 of a whole file, its own checksum's characters taken as zeros. Slice by slice, with the event loop in between:
 * WebCrypto would first copy everything at once, which takes as long, and refuses more than 256 MiB.
 */
export async function checksumOf(file: Uint8Array): Promise<string> {
  const hash = createHash('sha256');
  hash.update(file.subarray(0, CHECKSUM.begin)).update('0'.repeat(64));
  for (let at = CHECKSUM.end; at < file.length; at += SLICE) {
    if (at > CHECKSUM.end) await setImmediate();
    hash.update(file.subarray(at, at + SLICE));
  }
  return hash.digest('hex');
}

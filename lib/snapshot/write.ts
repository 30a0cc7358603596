import { native } from '../native';
import { formatHeader } from '../safetensors/writer';
import { newBytes } from './bytes';
import { checksumOf } from './checksum';
import { CHECKSUM, type Facts, FORMAT, type Kind, type Layout, VERSION } from './format';

/** A snapshot whose data and checksum are still to come. */
export class Draft {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly data: Uint8Array<ArrayBuffer>;

  constructor(header: Uint8Array, layout: Layout) {
    this.bytes = newBytes(header.length + layout.bytes, 'a snapshot');
    this.bytes.set(header);
    this.data = this.bytes.subarray(header.length);
  }

  /** The whole file, when the data are in. */
  async seal(): Promise<Uint8Array> {
    this.bytes.set(Buffer.from(await checksumOf(this.bytes)), CHECKSUM.begin);
    return this.bytes;
  }
}

export function draft<K extends Kind>(kind: K, facts: Facts<K>, layout: Layout): Draft {
  const sha256 = '0'.repeat(64);
  const head = { format: FORMAT, version: VERSION, sha256, kind, library: native.version };
  return new Draft(formatHeader({ ...head, ...facts }, layout.tensors), layout);
}

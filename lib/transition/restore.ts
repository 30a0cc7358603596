import { readConfig } from '../config';
import { fail, type InfiniError } from '../errors';
import { type NativeDevice, native } from '../native';
import { adoptStream, type MemoryStream } from '../stream';
import type { ResolvedConfig } from '../types';

/** Where a stream is made, and what it will be. */
export interface Site {
  readonly home: NativeDevice;
  readonly device: string;
  readonly config: ResolvedConfig;
}

/** A stream with this memory and no open segment; M is rounded to float32, once. */
export function streamWith(
  { home, device, config }: Site,
  tokens: number,
  matrix: Float32Array | Float64Array,
  normalizer: Float64Array,
): MemoryStream {
  const image = new ArrayBuffer(normalizer.length * 8 + matrix.length * 4); // as native/core/image.h says
  new Float64Array(image, 0, normalizer.length).set(normalizer);
  new Float32Array(image, normalizer.length * 8).set(matrix);
  try {
    const stream = native.restoreStream(home, readConfig(config), tokens, new Uint8Array(image));
    return adoptStream(stream, device, home, tokens);
  } catch (error) {
    const { code, message } = error as InfiniError;
    throw code === 'ERR_SNAPSHOT' ? fail('ERR_OUT_OF_RANGE', message) : error;
  }
}

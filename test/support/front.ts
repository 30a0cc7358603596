import type { Device, MemoryStream } from '../../lib';
import { sizes } from './sizes';

/** A stream at work on a call so long that whatever is queued behind it stays pending while a test looks. */
export function busyStream(device: Device): { stream: MemoryStream; front: Promise<unknown> } {
  const { tokens, ...shape } = sizes.busyCall;
  const stream = device.createStream({ heads: 8, ...shape });
  const data = new Float32Array(tokens * 8 * stream.config.headDim);
  const front = stream.attend({ q: data, k: data, v: data }).catch(() => {}); // a test may cut it off
  return { stream, front };
}

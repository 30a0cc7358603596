import type { Device, MemoryStream } from 'infini-stream';

/**
 * An associative memory over embedding vectors: what goes with this one? A fixed number of bytes, however much is written;
 * some d pairs can be told apart (README.md). Vectors have length 1 and d components, 16 to 256.
 */
export class EmbeddingMemory {
  readonly #stream: MemoryStream;

  constructor(
    device: Device,
    readonly dimension: number,
  ) {
    // A segment of one token: what is written is in the memory at once. The delta rule writes only what is new.
    this.#stream = device.createStream({ heads: 1, headDim: dimension, segmentLength: 1, rule: 'delta' });
  }

  /** From now on `value` goes with `key`. Calls take effect in call order. */
  async write(key: Float32Array, value: Float32Array): Promise<void> {
    const k = sharpen(key);
    await this.#stream.attend({ q: k, k, v: value });
  }

  /** About what was written with the keys near this one; the nearest stored value is the answer. Zeros at first. */
  async read(key: Float32Array): Promise<Float32Array> {
    return (await this.#stream.retrieve({ q: sharpen(key) })) as Float32Array;
  }

  close(): void {
    this.#stream.close();
  }
}

/** The memory sees ELU(x) + 1: below a standard deviation of the components that is nearly 0, so that few keys overlap. */
function sharpen(key: Float32Array): Float32Array {
  return key.map((x) => 10 * (x * Math.sqrt(key.length) - 1));
}

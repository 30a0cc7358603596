import type { Device, MemoryStream, StreamConfig, Tensor } from '../../lib';
import { ReferenceStream } from '../reference/reference-stream';
import { errorsByHead, expectAccurate, shortMemoryError } from './accuracy';
import { dataOf, type MadeInput, valuesOf } from './inputs';
import { type MadeTensor, poisoned } from './tensors';

export type How = 'sync' | 'async';

/** A stream and the reference, given the same tokens and compared after every call. */
export class Pair {
  readonly stream: MemoryStream;
  readonly reference: ReferenceStream;
  /** Outputs that were compared. */
  compared = 0;

  constructor(device: Device, config: StreamConfig) {
    this.stream = device.createStream(config);
    this.reference = new ReferenceStream(config);
  }

  async attend(input: MadeInput, how: How): Promise<Tensor> {
    const { heads, valueDim, dtype } = this.stream.config;
    const wanted = this.reference.attend(valuesOf(input));
    const out = poisoned(dtype, input.tokens * heads * valueDim);
    const result =
      how === 'sync'
        ? this.stream.attendSync(dataOf(input), { out })
        : await this.stream.attend(dataOf(input), { out });
    if (result !== out) throw new Error('the call did not return its out');
    expectAccurate({
      what: `the output of ${input.tokens} tokens ending at token ${this.reference.tokens}`,
      dtype,
      actual: result,
      wanted: wanted.output,
      heads,
      dim: valueDim,
      maxLogit: wanted.maxLogit,
      rope: this.stream.config.rope !== null,
    });
    const { tokens, segments } = this.stream;
    expect({ tokens, segments }).toEqual({
      tokens: this.reference.tokens,
      segments: this.reference.segments,
    });
    this.compared++;
    return result;
  }

  async retrieve(q: MadeTensor, how: How): Promise<Tensor> {
    const { heads, headDim, valueDim, dtype } = this.stream.config;
    const out = poisoned(dtype, (q.values.length / headDim) * valueDim);
    const result =
      how === 'sync'
        ? this.stream.retrieveSync({ q: q.data }, { out })
        : await this.stream.retrieve({ q: q.data }, { out });
    const wanted = this.reference.retrieve({ q: q.values });
    expectAccurate({
      what: `retrieval after ${this.reference.tokens} tokens`,
      dtype,
      actual: result,
      wanted,
      heads,
      dim: valueDim,
    });
    this.compared++;
    return result;
  }

  /** M and z, each kv head by its relative norm. */
  expectMemory(allowed = shortMemoryError(this.stream.config.dtype)): void {
    const { kvHeads, headDim, valueDim } = this.stream.config;
    const actual = this.stream.memory();
    const wanted = this.reference.memory();
    const errors = [
      ...errorsByHead(Float64Array.from(actual.matrix), wanted.matrix, kvHeads, headDim * valueDim),
      ...errorsByHead(actual.normalizer, wanted.normalizer, kvHeads, headDim),
    ];
    for (const error of errors) {
      if (!(error <= allowed)) throw new Error(`M, z of the kv heads err by ${errors}, allowed ${allowed}`);
    }
    this.compared++;
  }

  close(): void {
    this.stream.close();
  }
}

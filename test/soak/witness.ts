import { createHash } from 'node:crypto';
import type { Device, MemoryStream, ResolvedConfig, Tensor } from '../../lib';
import { onCuda } from '../support/device';
import { Rng } from '../support/rng';
import { bytesOf, emptyTensor } from '../support/tensors';

/** A call that was made: its numbers come from the seed, its result is kept as a hash, if it had one. */
interface Event {
  kind: 'attend' | 'retrieve';
  seed: number;
  tokens: number;
  /** Undefined while it is pending, null when it failed and so changed nothing. */
  result?: string | null;
}

export interface Input {
  q: Tensor;
  k: Tensor;
  v: Tensor;
}

/**
 * A stream and the calls that were made on it. What they computed, and what the stream has become, is repeated on
 * another stream at any time: there all tokens between two retrievals are one call. It must be the same to the bit
 * (on CUDA: all but the outputs of attend, which may depend on how calls are cut).
 */
export class Witness {
  pending = 0;
  closed = false;
  /** Events are shared with streams that were made of this one, also those that are pending. */
  readonly #history: Event[];

  constructor(
    readonly stream: MemoryStream,
    readonly device: Device,
    history: readonly Event[] = [],
  ) {
    this.#history = [...history];
  }

  /** Of the same past: a fork, or restored from a snapshot. */
  heir(stream: MemoryStream, device: Device, history = this.history): Witness {
    return new Witness(stream, device, history);
  }

  get history(): readonly Event[] {
    return [...this.#history];
  }

  /** As many as it has, or will have if every pending call succeeds. */
  get tokens(): number {
    const counted = this.#history.filter(({ kind, result }) => kind === 'attend' && result !== null);
    return counted.reduce((sum, { tokens }) => sum + tokens, 0);
  }

  get settled(): boolean {
    return this.pending === 0 && this.#history.every(({ result }) => result !== undefined);
  }

  input(seed: number, tokens: number): Input {
    const { heads, kvHeads, headDim, valueDim, dtype } = this.stream.config;
    const rng = new Rng(seed);
    const make = (width: number) => fill(emptyTensor(dtype, tokens * width), dtype, rng);
    return { q: make(heads * headDim), k: make(kvHeads * headDim), v: make(kvHeads * valueDim) };
  }

  /** Enters a call in its place; to be told the result, or null for a call that failed. */
  enter(kind: Event['kind'], seed: number, tokens: number): (result: Tensor | null) => void {
    const event: Event = { kind, seed, tokens };
    this.#history.push(event);
    this.pending++;
    return (result) => {
      this.pending--;
      event.result = result && hash(result);
    };
  }

  reset(): void {
    this.stream.reset();
    this.#history.length = 0;
  }

  async verify(): Promise<void> {
    const { config } = this.stream;
    using twin = this.device.createStream(config);
    const width = config.heads * config.valueDim;
    let chunk: Event[] = [];
    const attend = () => {
      if (chunk.length === 0) return;
      const inputs = chunk.map(({ seed, tokens }) => this.input(seed, tokens));
      const joined = (name: keyof Input) => join(inputs.map((input) => input[name]));
      const output = twin.attendSync({ q: joined('q'), k: joined('k'), v: joined('v') });
      let at = 0;
      for (const { tokens, result } of onCuda ? [] : chunk) {
        if (hash(output.subarray(at, at + tokens * width)) !== result)
          throw new Error(`an output of attend differs: ${this.describe()}`);
        at += tokens * width;
      }
      chunk = [];
    };
    for (const event of this.#history) {
      if (event.result === null) continue;
      if (event.kind === 'attend') {
        chunk.push(event);
        continue;
      }
      attend();
      const { q } = this.input(event.seed, event.tokens);
      if (hash(twin.retrieveSync({ q })) !== event.result)
        throw new Error(`an output of retrieve differs: ${this.describe()}`);
    }
    attend();
    const [one, other] = [await this.stream.snapshot(), await twin.snapshot()];
    if (this.stream.tokens !== twin.tokens)
      throw new Error(`${this.stream.tokens} tokens instead of ${twin.tokens}: ${this.describe()}`);
    if (!bytesOf(one).equals(bytesOf(other))) throw new Error(`a state differs: ${this.describe()}`);
  }

  describe(): string {
    const calls = this.#history.map(
      ({ kind, tokens, result }) => `${result === null ? '-' : ''}${kind[0]}${tokens}`,
    );
    return `${JSON.stringify(this.stream.config)} after ${calls.join(' ')}`;
  }

  close(): void {
    this.closed = true;
    this.stream.close();
  }
}

function fill(array: Tensor, dtype: ResolvedConfig['dtype'], rng: Rng): Tensor {
  for (let i = 0; i < array.length; i++) {
    const bits = rng.bits();
    if (dtype === 'float32') array[i] = (bits / 2 ** 31 - 1) * 2;
    else if (dtype === 'float16')
      array[i] = (bits & 0x83ff) | 0x3800; // 0.5 to 1, of both signs
    else array[i] = (bits & 0x80ff) | 0x3f00; // 0.5 to 2
  }
  return array;
}

function join(parts: Tensor[]): Tensor {
  const whole = parts[0] instanceof Float32Array ? Float32Array : Uint16Array;
  const joined = new whole(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

const hash = (array: Tensor): string => createHash('sha1').update(bytesOf(array)).digest('base64');

import { freezeConfig } from './config';
import { fail } from './errors';
import type { Books } from './job';
import { native as addon, type NativeDevice, type NativeStream } from './native';
import type { Place } from './operands';
import type { ResolvedConfig } from './types';

/** What a MemoryStream is made of: its class and the batches it is in work on this. */
export class StreamCore implements Place, Books {
  readonly config: ResolvedConfig;
  /** Asynchronous calls that have not settled. */
  pending = 0;

  constructor(
    readonly native: NativeStream,
    /** The device's id. */
    readonly device: string,
    /** Where it lives: streams made from this one live there too. */
    readonly home: NativeDevice,
    /** Committed by the calls that have settled. */
    public tokens = 0,
  ) {
    this.config = freezeConfig(addon.streamConfig(native));
  }

  /** Tokens that may be open when the pending calls are over. */
  get mostOpen(): number {
    const { segmentLength } = this.config;
    return this.pending > 0 ? segmentLength - 1 : this.tokens % segmentLength;
  }

  /** Copies of M and z. */
  memory(): { matrix: Float32Array; normalizer: Float64Array } {
    const { kvHeads, headDim, valueDim } = this.config;
    const matrix = new Float32Array(kvHeads * headDim * valueDim);
    const normalizer = new Float64Array(kvHeads * headDim);
    addon.memory(this.native, matrix, normalizer);
    return { matrix, normalizer };
  }

  begin(): void {
    this.pending++;
  }

  end(): void {
    this.pending--;
  }

  committed(tokens: number): number {
    const { segmentLength } = this.config;
    const before = Math.floor(this.tokens / segmentLength);
    this.tokens = tokens;
    return Math.floor(tokens / segmentLength) - before;
  }

  checkDevice(device: string, name: string): void {
    if (this.device === device) return;
    throw fail(
      'ERR_INVALID_ARG_TYPE',
      `Expected a stream of '${device}' for "${name}" but received one of '${this.device}'`,
    );
  }

  checkOpen(): void {
    if (addon.streamClosed(this.native)) throw fail('ERR_CLOSED', 'Expected an open stream but it is closed');
  }

  checkIdle(method: string): void {
    if (this.pending > 0)
      throw fail('ERR_BUSY', `Expected no pending call for ${method}() but ${this.pending} have not settled`);
  }
}

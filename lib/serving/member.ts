import type { NativeConfig } from '../native';
import type { Place } from '../operands';
import type { StreamCore } from '../stream-core';
import { elementBytes } from '../tensor';
import type { ResolvedConfig } from '../types';
import type { Request } from './request';

/** A stream of a scheduler, and where its state is: in `core`, in `image`, or nowhere while it is empty. */
export class Member implements Place {
  /** In call order; only the first is at work. */
  readonly requests: Request[] = [];
  /** Waits to be queued. */
  outside: Request | undefined;
  /** Committed by the requests that have settled. */
  tokens = 0;
  /** On the device. */
  core: StreamCore | undefined;
  /** In host memory: what `native.snapshot` gives. */
  image: Uint8Array | undefined;
  /** On its way to or from the device. */
  moving = false;
  /** Snapshots that are being taken: it does not leave the device meanwhile. */
  snapshots = 0;
  closed = false;
  /** Nobody can call it any more: it goes with its last request. */
  forgotten = false;

  constructor(
    readonly device: string,
    /** As the user gave it, and resolved. */
    readonly given: NativeConfig,
    readonly config: ResolvedConfig,
    /** Of its state on the device. */
    readonly bytes: number,
  ) {}

  get front(): Request | undefined {
    return this.requests[0];
  }

  /** In its state: those of the pieces of a request at work too. */
  get stateTokens(): number {
    const { front } = this;
    return this.tokens + (front?.operation === 'attend' ? front.done : 0);
  }

  /** Of a state of so many tokens in host memory. */
  imageBytes(tokens: number): number {
    if (tokens === 0) return 0;
    const { kvHeads, headDim, valueDim, segmentLength, dtype } = this.config;
    const token = (headDim + valueDim) * elementBytes(dtype);
    return kvHeads * (headDim * valueDim * 4 + headDim * 8 + (tokens % segmentLength) * token);
  }
}

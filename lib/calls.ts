// The vocabulary of the public interface: what calls take.
import type { DeviceTensor } from './device-tensor';
import type { Tensor } from './types';

export interface AttendInput {
  /** Queries, `[tokens, heads, headDim]`. */
  q: Tensor | DeviceTensor;
  /** Keys, `[tokens, kvHeads, headDim]`. */
  k: Tensor | DeviceTensor;
  /** Values, `[tokens, kvHeads, valueDim]`. */
  v: Tensor | DeviceTensor;
}

export interface RetrieveInput {
  /** Queries, `[tokens, heads, headDim]`. */
  q: Tensor | DeviceTensor;
}

export interface SyncOptions<Out extends Tensor | DeviceTensor = Tensor> {
  /**
   * Takes the result, `[tokens, heads, valueDim]`, and is what the call returns: a device tensor, or an array of
   * exactly the output's class and length, neither shared nor resizable. Untouched when the call fails. An array of
   * JavaScript's own may overlap the inputs; a device tensor or an array in a host buffer may not (ERR_BUSY).
   */
  out?: Out;
}

export interface AttendOptions<Out extends Tensor | DeviceTensor = Tensor> extends SyncOptions<Out> {
  /** Aborts the call: it rejects with ABORT_ERR and the stream stays as it was before it. */
  signal?: AbortSignal;
}
export type RetrieveOptions<Out extends Tensor | DeviceTensor = Tensor> = AttendOptions<Out>;

export interface BatchOptions {
  /** Aborts what has not settled yet. */
  signal?: AbortSignal;
}

/** One token for each stream of a prepared batch, packed; in the arrays or device tensors that `attend` takes. */
export interface StepInput<Out extends Tensor | DeviceTensor = Tensor> {
  /** `[streams, heads, headDim]`. */
  q: Tensor | DeviceTensor;
  /** `[streams, kvHeads, headDim]`. */
  k: Tensor | DeviceTensor;
  /** `[streams, kvHeads, valueDim]`. */
  v: Tensor | DeviceTensor;
  /** `[streams, heads, valueDim]`: takes the result, as in {@link SyncOptions}. */
  out?: Out;
}

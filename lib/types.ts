// The vocabulary of the public interface: what streams and devices are.

/** Element type of the tensors; bfloat16 and float16 travel as the bit patterns in a Uint16Array. */
export type DType = 'float32' | 'bfloat16' | 'float16';

/**
 * A row-major typed array of the stream's dtype: Float32Array for 'float32', Uint16Array for the 16-bit types.
 * Shapes: q `[tokens, heads, headDim]`, k `[tokens, kvHeads, headDim]`, v `[tokens, kvHeads, valueDim]`,
 * output `[tokens, heads, valueDim]`. The number of tokens follows from the lengths.
 */
export type Tensor = Float32Array | Uint16Array;

/** How a full segment changes the memory: eq. (8) or eq. (9) of the paper. */
export type Rule = 'linear' | 'delta';

/** What the output is while no segment is absorbed yet. */
export type EmptyRead = 'gated' | 'local';

/** What a stream is asked to be. */
export interface StreamConfig {
  /** Query heads, 1 to 1024. */
  heads: number;
  /** Key-value heads; must divide `heads`. Query head h reads key-value head floor(h / (heads / kvHeads)). Default: `heads`. */
  kvHeads?: number;
  /** d_k, elements of a query or key, 1 to 256. */
  headDim: number;
  /** d_v, elements of a value, 1 to 256. Default: `headDim`. */
  valueDim?: number;
  /** N, tokens per segment, 1 to 65536. Default: 2048. */
  segmentLength?: number;
  /** Default: 'delta'. */
  rule?: Rule;
  /** beta of eq. (10), one number or one per query head; the output uses sigmoid(beta). Finite. Default: 0. */
  gate?: number | ArrayLike<number>;
  /** Of the local softmax; finite, above 0. Default: 1 / sqrt(headDim). */
  scale?: number;
  /**
   * Rotary positions in local attention only (pairs (i, i + headDim / 2) as in Llama; `headDim` must be even).
   * Positions restart at 0 in each segment; the memory sees q and k unrotated. Default: none.
   */
  rope?: { theta: number } | null;
  /**
   * While no segment is absorbed: 'gated' is the paper's formula with A_mem = 0, that is (1 - g) A_dot; 'local' is
   * A_dot. Weights trained one way do not fit the other. Default: 'gated'.
   */
  emptyRead?: EmptyRead;
  /** Of q, k, v and the output. 16-bit types travel as Uint16Array bit patterns. Default: 'float32'. */
  dtype?: DType;
}

/** A configuration with every default filled in; deeply frozen. */
export interface ResolvedConfig {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
  readonly segmentLength: number;
  readonly rule: Rule;
  /** One beta per query head. */
  readonly gate: readonly number[];
  readonly scale: number;
  readonly rope: { readonly theta: number } | null;
  readonly emptyRead: EmptyRead;
  readonly dtype: DType;
}

/** A place where streams can live. */
export interface DeviceInfo {
  /** What `openDevice` takes. */
  id: string;
  backend: 'cpu' | 'cuda';
  /** The processor's own name. */
  name: string;
  /** cpu: threads that may work at once. */
  threads?: number;
  /** cpu: the instruction set in use. */
  simd?: 'amx' | 'avx512' | 'avx2' | 'portable';
  /** cuda: as in '9.0'. */
  computeCapability?: string;
  /** cuda: bytes of device memory. */
  totalBytes?: number;
  /** cuda: bytes of device memory now free. */
  freeBytes?: number;
  /** cuda: version of the driver. */
  driver?: string;
}

/** What the engine behind a device holds and has done: one engine per process and device, whoever opened it. */
export interface DeviceStats {
  /** Open streams, and bytes of their state. */
  streams: number;
  streamBytes: number;
  /**
   * Bytes now held beside the streams: for kernels (on the CPU each thread keeps its own), by the tensors of pending
   * calls, by rotary tables and gates.
   */
  scratchBytes: number;
  stagingBytes: number;
  tableBytes: number;
  /** Bytes of device tensors and host buffers. */
  tensorBytes: number;
  /** Bytes of the weights of models. */
  weightBytes: number;
  /**
   * Bytes kept for the next call or stream of the same shape. CPU: at most 8 blocks and 128 MiB. CUDA: at most a 16th of
   * the GPU's memory and 512 MiB there, and 256 MiB of pinned memory.
   */
  idleBytes: number;
  /** Asynchronous calls that the engine has not finished. */
  pendingCalls: number;
  /** Tokens and segments ever committed. */
  tokens: number;
  segments: number;
  /** Units of work ever run. */
  units: number;
  /** Bytes ever allocated for scratch, staging and tables. */
  allocatedBytes: number;
  /**
   * Time ever spent in kernels. CPU: in units of asynchronous calls, summed over the engine's threads. CUDA: in rounds.
   * Both: and in `*Sync` calls, on the threads that made them.
   */
  kernelMilliseconds: number;
}

export interface DeviceOptions {
  /**
   * How many threads this handle's streams may use at once, 1 to 1024. Default: the cores this process may use. Without
   * effect on a GPU, whose engine has one thread.
   */
  threads?: number;
}

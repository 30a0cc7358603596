import { existsSync } from 'node:fs';
import path from 'node:path';
import load from 'node-gyp-build';
import type { NativeWeight } from './model/weights';
import type { DeviceInfo, DeviceStats, ResolvedConfig, Tensor } from './types';

declare const brand: unique symbol;
export type NativeDevice = { readonly [brand]: 'device' };
export type NativeStream = { readonly [brand]: 'stream' };
export type NativeBatch = { readonly [brand]: 'batch' };
export type NativeModel = { readonly [brand]: 'model' };
/** The memory of a device tensor or a host buffer. */
export type NativeMemory = { readonly [brand]: 'memory' };

/** A tensor of a call: an array, a device tensor's memory, or [a host buffer's, byte offset, elements]. */
export type NativeOperand = Tensor | NativeMemory | readonly [NativeMemory, number, number];

/** What a stream is made from: types are checked in config.ts, ranges in native/core/config.cc. */
export interface NativeConfig {
  heads: number;
  headDim: number;
  kvHeads?: number;
  valueDim?: number;
  segmentLength?: number;
  rule?: string;
  gate?: number | number[];
  scale?: number;
  ropeTheta?: number;
  emptyRead?: string;
  dtype?: string;
}

/** What a model's dense layers are made from. */
export interface NativeModelConfig {
  vocabulary: number;
  width: number;
  layers: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  mlpWidth: number;
  tied: boolean;
  gated: boolean;
  activation: string;
  normEpsilon: number;
}

/** Called once per asynchronous call; after attend and retrieve, `tokens` counts the stream's committed tokens. */
export type Settle = (error: Error | null, tokens: number) => void;

/**
 * The addon's exports (native/addon). Internal: the classes of this package are the only callers. At most six arguments:
 * for more node-addon-api asks for memory where it cannot say that there is none.
 */
interface Addon {
  version: string;
  errorTable(): Record<string, string>;

  listDevices(threads: number): DeviceInfo[];
  /** Why there is no CUDA device; empty when there is one. */
  cudaAbsence(): string;
  /** Operations a second, 0 on tiles where there are none; bytes a second when so many are gone through. Blocks. */
  cpuFloor(kind: 'multiply' | 'tiles', threads: number, bytes: 0): number;
  cpuFloor(kind: 'read' | 'triad', threads: number, bytes: number): number;
  openDevice(id: string, threads: number, engineThreads: number): NativeDevice;
  deviceInfo(device: NativeDevice): DeviceInfo;
  deviceStats(device: NativeDevice): DeviceStats;
  closeDevice(device: NativeDevice): void;
  deviceClosed(device: NativeDevice): boolean;
  createStream(device: NativeDevice, config: NativeConfig): NativeStream;
  /** The configuration with every default filled in, and the bytes of such a stream's state. */
  resolve(device: NativeDevice, config: NativeConfig): [ResolvedConfig, number];
  /** Bytes that the states of streams to come can take. */
  freeBytes(device: NativeDevice): number;
  /** A stream in the state that {@link snapshot} gave, after so many tokens; all of it is checked. */
  restoreStream(device: NativeDevice, config: NativeConfig, tokens: number, image: Uint8Array): NativeStream;
  /** The same on another thread, which reads the image until it settles. */
  restoreStreamLater(
    device: NativeDevice,
    config: NativeConfig,
    tokens: number,
    image: Uint8Array,
    settle: (error: Error | null, stream: NativeStream | null) => void,
  ): void;

  createTensor(device: NativeDevice, bytes: number): NativeMemory;
  createHostBuffer(device: NativeDevice, bytes: number): [ArrayBuffer, NativeMemory];
  /** A copy of the array in memory of the processor's, for calls to use in place until it is closed. */
  stage(device: NativeDevice, array: Tensor): NativeMemory;
  writeTensor(memory: NativeMemory, data: Tensor): void;
  readTensor(memory: NativeMemory, settle: Settle): number;
  closeTensor(memory: NativeMemory): void;
  tensorClosed(memory: NativeMemory): boolean;

  /** Copies the arrays, queues the call and returns its ticket. Without `out` the result is there to {@link take}. */
  attend(
    stream: NativeStream,
    q: NativeOperand,
    k: NativeOperand,
    v: NativeOperand,
    out: NativeOperand | undefined,
    settle: Settle,
  ): number;
  retrieve(stream: NativeStream, q: NativeOperand, out: NativeOperand | undefined, settle: Settle): number;
  /** Queues at once those calls that can be made: a ticket or an error for each. */
  attendMany(
    calls: [NativeStream, NativeOperand, NativeOperand, NativeOperand, NativeOperand | undefined, Settle][],
  ): (number | Error)[];
  attendSync(
    stream: NativeStream,
    q: NativeOperand,
    k: NativeOperand,
    v: NativeOperand,
    out: NativeOperand,
  ): void;
  retrieveSync(stream: NativeStream, q: NativeOperand, out: NativeOperand): void;
  /**
   * Queues a copy of the stream's state, in which at most so many tokens are open, and returns its ticket. Within the settle callback, which says of how many tokens,
   * it is there to {@link take}: z (float64), M (float32), the open segment's keys and values as attend took them.
   */
  snapshot(stream: NativeStream, mostOpen: number, settle: Settle): number;
  /** Within a settle callback: copies that call's result. */
  take(out: Tensor | Uint8Array): void;
  /** All at once: none of them begins any more. */
  cancel(tickets: number[]): void;

  createBatch(device: NativeDevice, streams: NativeStream[]): NativeBatch;
  step(
    batch: NativeBatch,
    q: NativeOperand,
    k: NativeOperand,
    v: NativeOperand,
    out: NativeOperand | undefined,
    settle: Settle,
  ): number;
  stepSync(
    batch: NativeBatch,
    q: NativeOperand,
    k: NativeOperand,
    v: NativeOperand,
    out: NativeOperand,
  ): void;
  closeBatch(batch: NativeBatch): void;
  batchClosed(batch: NativeBatch): boolean;

  /** Reads the weights on another thread; the files stay open until it settles. */
  loadModel(
    device: NativeDevice,
    config: NativeModelConfig,
    weights: NativeWeight[],
    settle: (error: Error | null, model: NativeModel | null) => void,
  ): void;
  /**
   * Sends each session's tokens through the layers: `streams` are the sessions' own, session by session and in each
   * layer by layer. Commits all or nothing. Returns a ticket; when `wanted`, the logits after each session's last token are
   * there to {@link take}.
   */
  forward(
    model: NativeModel,
    streams: NativeStream[],
    batches: NativeBatch[] | undefined,
    tokens: Int32Array[],
    wanted: boolean,
    settle: Settle,
  ): number;
  weightBytes(model: NativeModel): number;
  closeModel(model: NativeModel): void;
  modelClosed(model: NativeModel): boolean;

  streamConfig(stream: NativeStream): ResolvedConfig;
  byteLength(stream: NativeStream): number;
  memory(stream: NativeStream, matrix: Float32Array, normalizer: Float64Array): void;
  reset(stream: NativeStream): void;
  fork(stream: NativeStream): NativeStream;
  closeStream(stream: NativeStream): void;
  streamClosed(stream: NativeStream): boolean;
}

/**
 * In a checkout, INFINI_TEST_DEVICE=cuda-emulated selects the addon whose CUDA kernels run on the host, so that tests
 * cover the CUDA backend without a GPU. A published package has no such addon and ignores the variable.
 */
function isEmulated(root: string): boolean {
  return process.env.INFINI_TEST_DEVICE === 'cuda-emulated' && existsSync(path.join(root, 'CMakeLists.txt'));
}

function loadAddon(): Addon {
  const root = path.join(__dirname, '..');
  if (isEmulated(root)) {
    const folder = process.env.INFINI_STREAM_PREBUILD ?? root; // as node-gyp-build understands it
    const file = path.join(folder, 'build/Emulated/infini_stream.node');
    if (!existsSync(file)) throw new Error('INFINI_TEST_DEVICE=cuda-emulated needs `npm run build:emulated`');
    return require(file) as Addon;
  }
  try {
    return load(root) as Addon;
  } catch (cause) {
    const place = `${process.platform}-${process.arch}, Node ${process.version}`;
    const detail = cause instanceof Error ? cause.message.split('\n')[0] : String(cause);
    throw new Error(
      `infini-stream could not load its native addon on ${place}: ${detail}\n` +
        'Prebuilt for linux-x64 with glibc 2.34 or later; on other Linux and macOS machines build it from a clone ' +
        'of the repository with `npm run build` (CMake 3.24, GCC or Clang with C++20).',
      { cause },
    );
  }
}

export const native: Addon = loadAddon();

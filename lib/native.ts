import path from 'node:path';
import load from 'node-gyp-build';
import type { DeviceInfo, DeviceStats, ResolvedConfig, Tensor } from './types';

declare const brand: unique symbol;
export type NativeDevice = { readonly [brand]: 'device' };
export type NativeStream = { readonly [brand]: 'stream' };

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

/** Called once per asynchronous call; `tokens` counts the stream's committed tokens when there is no error. */
export type Settle = (error: Error | null, tokens: number) => void;

/** The addon's exports (native/addon). Internal: the classes of this package are the only callers. */
interface Addon {
  version: string;
  errorTable(): Record<string, string>;

  listDevices(threads: number): DeviceInfo[];
  openDevice(id: string, threads: number, engineThreads: number): NativeDevice;
  deviceInfo(device: NativeDevice): DeviceInfo;
  deviceStats(device: NativeDevice): DeviceStats;
  closeDevice(device: NativeDevice): void;
  deviceClosed(device: NativeDevice): boolean;
  createStream(device: NativeDevice, config: NativeConfig): NativeStream;

  /** Copies the tensors, queues the call and returns its ticket. */
  attend(stream: NativeStream, q: Tensor, k: Tensor, v: Tensor, settle: Settle): number;
  retrieve(stream: NativeStream, q: Tensor, settle: Settle): number;
  attendSync(stream: NativeStream, q: Tensor, k: Tensor, v: Tensor, out: Tensor): void;
  retrieveSync(stream: NativeStream, q: Tensor, out: Tensor): void;
  /** Within a settle callback: copies that call's result. */
  take(out: Tensor): void;
  cancel(stream: NativeStream, ticket: number): void;
  streamConfig(stream: NativeStream): ResolvedConfig;
  byteLength(stream: NativeStream): number;
  memory(stream: NativeStream, matrix: Float32Array, normalizer: Float64Array): void;
  reset(stream: NativeStream): void;
  fork(stream: NativeStream): NativeStream;
  closeStream(stream: NativeStream): void;
  streamClosed(stream: NativeStream): boolean;
}

function loadAddon(): Addon {
  const root = path.join(__dirname, '..');
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

import os from 'node:os';
import { attendBatch, type BatchEntry } from './attend-batch';
import { type Batch, makeBatch } from './batch';
import type { BatchOptions } from './calls';
import { readConfig, readRecord } from './config';
import { type DeviceTensor, makeDeviceTensor } from './device-tensor';
import { expected, fail } from './errors';
import { makeHostBuffer } from './host-buffer';
import { type NativeDevice, native } from './native';
import { copyBytes } from './snapshot/bytes';
import { restoreStream } from './snapshot/stream';
import { adoptStream, type MemoryStream } from './stream';
import { makeRecorder, type Recorder, type RecorderOptions } from './transition/recorder';
import type { DeviceInfo, DeviceOptions, DeviceStats, DType, StreamConfig, Tensor } from './types';
import { tell, watchersOf } from './watchers';

// Only this file makes devices: `new Device()` by anyone else has no key.
const key = Symbol('infini-stream device');
let adoptDevice: (handle: NativeDevice) => Device;
/** For models; undefined for everything else than a device. */
export let handleOf: (device: unknown) => NativeDevice | undefined;

/** A handle on a device, made by {@link openDevice}. Handles on one device share one engine and one thread pool. */
export class Device {
  readonly #native: NativeDevice;
  readonly #id: string;
  /** What this device is. */
  readonly info: Readonly<DeviceInfo>;

  static {
    adoptDevice = (handle) => new Device(key, handle);
    handleOf = (device) =>
      typeof device === 'object' && device !== null && #native in device ? device.#native : undefined;
  }

  private constructor(secret: symbol, handle: NativeDevice) {
    if (secret !== key) throw fail('ERR_INVALID_ARG_TYPE', 'Expected Device to be made by openDevice()');
    this.#native = handle;
    this.info = Object.freeze(native.deviceInfo(handle));
    this.#id = this.info.id;
  }

  static #check(receiver: unknown, method: string): asserts receiver is Device {
    if (typeof receiver !== 'object' || receiver === null || !(#native in receiver)) {
      throw fail('ERR_INVALID_ARG_TYPE', `Expected a Device as the receiver of ${method}`);
    }
  }

  static #checkOpen(receiver: unknown, method: string): asserts receiver is Device {
    Device.#check(receiver, method);
    if (native.deviceClosed(receiver.#native))
      throw fail('ERR_CLOSED', 'Expected an open device but it is closed');
  }

  /**
   * Makes an empty stream. Its state, `byteLength` bytes, is allocated now and never grows.
   * @throws ERR_CLOSED, ERR_INVALID_ARG_TYPE, ERR_OUT_OF_RANGE, ERR_SHAPE (gate length), ERR_OUT_OF_MEMORY, ERR_DEVICE.
   */
  createStream(config: StreamConfig): MemoryStream {
    Device.#checkOpen(this, 'createStream');
    return adoptStream(native.createStream(this.#native, readConfig(config)), this.#id, this.#native);
  }

  /**
   * A stream in the state that `stream.snapshot()` gave, on this device or another: it goes on bit for bit where that one
   * was, on another kind of device within the accuracy of the outputs. The bytes are copied before this returns. Its
   * memory is what its configuration asks for, as in {@link createStream}, and its checksum finds accidents, not malice:
   * sign what strangers may touch.
   *
   * Never throws; rejects with ERR_CLOSED, ERR_INVALID_ARG_TYPE (no Uint8Array), ERR_SNAPSHOT, which says what is wrong with
   * the bytes, ERR_OUT_OF_MEMORY, ERR_DEVICE.
   */
  async restore(bytes: Uint8Array): Promise<MemoryStream> {
    Device.#checkOpen(this, 'restore');
    const { stream, tokens } = await restoreStream(this.#native, copyBytes(bytes));
    return adoptStream(stream, this.#id, this.#native, tokens);
  }

  /**
   * Makes a recorder of what part of a text does to the memory of a stream of this configuration (docs/serving.md). The
   * delta rule asks for the z of all tokens before that part. Its state takes as many bytes as a stream's of
   * valueDim + headDim values.
   * @throws as {@link createStream}; ERR_INVALID_ARG_TYPE, ERR_SHAPE and ERR_OUT_OF_RANGE (options).
   */
  createRecorder(config: StreamConfig, options: RecorderOptions = {}): Recorder {
    Device.#checkOpen(this, 'createRecorder');
    return makeRecorder(this.#native, this.#id, config, options);
  }

  /**
   * Makes a tensor in the device's own memory: of `data`, or of zeros. `shape` is 1 to 8 whole numbers above 0. Calls
   * ask for the right number of elements, and of a shape with three dimensions that it is exactly theirs.
   * @throws ERR_CLOSED, ERR_INVALID_ARG_TYPE, ERR_OUT_OF_RANGE, ERR_DTYPE and ERR_SHAPE (data), ERR_BUSY (data
   * that a pending call writes), ERR_OUT_OF_MEMORY, ERR_DEVICE.
   */
  tensor(shape: readonly number[], dtype: DType, data?: Tensor): DeviceTensor {
    Device.#checkOpen(this, 'tensor');
    return makeDeviceTensor(this.#native, this.#id, shape, dtype, data);
  }

  /**
   * Memory, zero at first, that this device copies from and to fastest (on a GPU: pinned). Calls on this device use
   * typed arrays over it in place, as q, k, v or `out`, and lease the bytes they use until they settle: what
   * JavaScript stores in them meanwhile, or reads from an `out`, is undefined, though harmless. Freed when it is
   * collected and no call uses it.
   * @throws ERR_CLOSED, ERR_INVALID_ARG_TYPE, ERR_OUT_OF_RANGE, ERR_OUT_OF_MEMORY, ERR_DEVICE.
   */
  hostBuffer(byteLength: number): ArrayBuffer {
    Device.#checkOpen(this, 'hostBuffer');
    return makeHostBuffer(this.#native, this.#id, byteLength);
  }

  /**
   * Calls `attend` on many streams of this device at once, whatever their configurations; a GPU runs them together.
   * Each entry succeeds or fails by itself, as the same call made alone would; a stream that occurs twice is
   * ERR_BUSY the second time. Tensors stay leased until all have settled. At most 4096 entries.
   *
   * Never throws; rejects with ERR_CLOSED, ERR_INVALID_ARG_TYPE (no array, or wrong options) or ERR_OUT_OF_RANGE
   * (too many), and otherwise resolves with the outcome of each entry.
   */
  attendBatch(
    entries: readonly BatchEntry[],
    options?: BatchOptions,
  ): Promise<PromiseSettledResult<Tensor | DeviceTensor>[]> {
    try {
      Device.#checkOpen(this, 'attendBatch');
      return attendBatch(this.#id, entries, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Prepares streams to step together, one token each: 1 to 4096 distinct open streams of this device with equal
   * configurations.
   * @throws ERR_CLOSED (device or stream), ERR_INVALID_ARG_TYPE (no array, no streams, another device's),
   * ERR_OUT_OF_RANGE (their number, or configurations that differ), ERR_BUSY (a stream occurs twice), ERR_OUT_OF_MEMORY,
   * ERR_DEVICE.
   */
  createBatch(streams: readonly MemoryStream[]): Batch {
    Device.#checkOpen(this, 'createBatch');
    return makeBatch(this.#native, this.#id, streams);
  }

  /**
   * How many more streams of this configuration fit: floor(bytes / their `byteLength`). `bytes` defaults to what is free
   * now, for everyone on the machine and without what open streams were promised; calls need some of it too.
   * @throws ERR_CLOSED, ERR_INVALID_ARG_TYPE, ERR_OUT_OF_RANGE, ERR_SHAPE (gate length), ERR_DEVICE.
   */
  capacity(config: StreamConfig, bytes?: number): number {
    Device.#checkOpen(this, 'capacity');
    const [, streamBytes] = native.resolve(this.#native, readConfig(config));
    return Math.floor(
      (bytes === undefined ? native.freeBytes(this.#native) : readBytes(bytes)) / streamBytes,
    );
  }

  /** What the engine behind this device holds and has done. */
  stats(): DeviceStats {
    Device.#check(this, 'stats');
    return native.deviceStats(this.#native);
  }

  /**
   * Closes this handle, every stream and every tensor made from it; pending calls of the streams reject with
   * ERR_CLOSED. Idempotent.
   */
  close(): void {
    Device.#check(this, 'close');
    native.closeDevice(this.#native);
    tell(watchersOf(this.#native));
  }

  [Symbol.dispose](): void {
    Device.#check(this, '[Symbol.dispose]');
    native.closeDevice(this.#native);
    tell(watchersOf(this.#native));
  }
}

function readBytes(bytes: unknown): number {
  if (typeof bytes !== 'number') throw expected('ERR_INVALID_ARG_TYPE', 'bytes', 'a number', bytes);
  if (!(bytes >= 0 && bytes <= Number.MAX_SAFE_INTEGER))
    throw expected('ERR_OUT_OF_RANGE', 'bytes', 'a number from 0 to 2 ** 53 - 1', bytes);
  return bytes;
}

const defaultThreads = (): number => os.availableParallelism();

/**
 * Every device of this machine. Never throws for lack of a GPU; 'cpu' is always there.
 * @throws ERR_NO_DEVICE when INFINI_CPU names no level; the message names those there are.
 */
export function listDevices(): DeviceInfo[] {
  return native.listDevices(defaultThreads());
}

/**
 * Opens a device: 'auto' (the default) is the first GPU that can be used, or else the CPU; 'cuda' is 'cuda:0'.
 * @throws ERR_NO_DEVICE, whose message says why the device (for the CPU: what INFINI_CPU names) cannot be had;
 * ERR_INVALID_ARG_TYPE; ERR_OUT_OF_RANGE;
 * ERR_OUT_OF_MEMORY and ERR_DEVICE from a GPU that is full or has failed.
 */
export function openDevice(
  id: 'auto' | 'cpu' | 'cuda' | `cuda:${number}` = 'auto',
  options: DeviceOptions = {},
): Device {
  if (typeof id !== 'string') throw expected('ERR_INVALID_ARG_TYPE', 'id', 'a string', id);
  const { threads = defaultThreads() } = readRecord(options, 'options', new Set(['threads']));
  if (typeof threads !== 'number')
    throw expected('ERR_INVALID_ARG_TYPE', 'options.threads', 'a number', threads);
  if (!Number.isInteger(threads) || threads < 1 || threads > 1024) {
    throw expected('ERR_OUT_OF_RANGE', 'options.threads', 'an integer from 1 to 1024', threads);
  }
  return adoptDevice(native.openDevice(id, threads, defaultThreads()));
}

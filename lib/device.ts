import os from 'node:os';
import { readConfig, readRecord } from './config';
import { expected, fail } from './errors';
import { type NativeDevice, native } from './native';
import { adoptStream, type MemoryStream } from './stream';
import type { DeviceInfo, DeviceOptions, DeviceStats, StreamConfig } from './types';

// Only this file makes devices: `new Device()` by anyone else has no key.
const key = Symbol('infini-stream device');
let adoptDevice: (handle: NativeDevice) => Device;

/** A handle on a device, made by {@link openDevice}. Handles on one device share one engine and one thread pool. */
export class Device {
  readonly #native: NativeDevice;
  /** What this device is. */
  readonly info: Readonly<DeviceInfo>;

  static {
    adoptDevice = (handle) => new Device(key, handle);
  }

  private constructor(secret: symbol, handle: NativeDevice) {
    if (secret !== key) throw fail('ERR_INVALID_ARG_TYPE', 'Expected Device to be made by openDevice()');
    this.#native = handle;
    this.info = Object.freeze(native.deviceInfo(handle));
  }

  static #of(receiver: unknown, method: string): NativeDevice {
    if (typeof receiver !== 'object' || receiver === null || !(#native in receiver)) {
      throw fail('ERR_INVALID_ARG_TYPE', `Expected a Device as the receiver of ${method}`);
    }
    return receiver.#native;
  }

  /**
   * Makes an empty stream. Its state, `byteLength` bytes, is allocated now and never grows.
   * @throws ERR_CLOSED, ERR_INVALID_ARG_TYPE, ERR_OUT_OF_RANGE, ERR_SHAPE (gate length), ERR_OUT_OF_MEMORY.
   */
  createStream(config: StreamConfig): MemoryStream {
    const handle = Device.#of(this, 'createStream');
    if (native.deviceClosed(handle)) throw fail('ERR_CLOSED', 'Expected an open device but it is closed');
    return adoptStream(native.createStream(handle, readConfig(config)));
  }

  /** What the engine behind this device holds and has done. */
  stats(): DeviceStats {
    return native.deviceStats(Device.#of(this, 'stats'));
  }

  /** Closes this handle and every stream made from it; their pending calls reject with ERR_CLOSED. Idempotent. */
  close(): void {
    native.closeDevice(Device.#of(this, 'close'));
  }

  [Symbol.dispose](): void {
    native.closeDevice(Device.#of(this, '[Symbol.dispose]'));
  }
}

const defaultThreads = (): number => os.availableParallelism();

/** Every device of this machine. Never throws for lack of a GPU; 'cpu' is always there. */
export function listDevices(): DeviceInfo[] {
  return native.listDevices(defaultThreads());
}

/**
 * Opens a device: 'auto' (the default) takes the best there is.
 * @throws ERR_NO_DEVICE, whose message says why the device cannot be had; ERR_INVALID_ARG_TYPE; ERR_OUT_OF_RANGE.
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

import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { AbsorbEvent, AttendEvent, Device, DeviceStats, ErrorEvent, SwapEvent } from 'infini-stream';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

/** Of device.stats(): what only ever grows. */
const totals = ['tokens', 'segments', 'units', 'allocatedBytes', 'kernelMilliseconds'] as const;

/** Microseconds of a token to seconds of a long text. */
const buckets = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];

const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** What infini-stream says of itself, for Prometheus: its events as they come, and the device's statistics when asked. */
export class Metrics {
  readonly registry = new Registry();
  readonly #subscriptions: [channel: string, listener: (event: unknown) => void][] = [];

  constructor(device: Device) {
    collectDefaultMetrics({ register: this.registry });
    this.#addStats(device);
    this.#addEvents();
  }

  histogram<L extends string>(name: string, help: string, labelNames: L[]): Histogram<L> {
    return new Histogram({ name, help, labelNames, buckets, registers: [this.registry] });
  }

  counter<L extends string>(name: string, help: string, labelNames: L[]): Counter<L> {
    return new Counter({ name, help, labelNames, registers: [this.registry] });
  }

  /** Read when somebody asks. */
  gauge(name: string, help: string, read: () => number): void {
    new Gauge({ name, help, registers: [this.registry], collect: collectInto(read) });
  }

  /** Of something that counts itself. */
  total(name: string, help: string, read: () => number): void {
    const counter = new Counter({
      name,
      help,
      registers: [this.registry],
      collect: () => {
        counter.reset();
        counter.inc(read());
      },
    });
  }

  #addStats(device: Device): void {
    for (const key of Object.keys(device.stats()) as (keyof DeviceStats)[]) {
      const name = `infini_device_${snake(key)}`;
      const help = `"${key}" of device.stats()`;
      const read = () => device.stats()[key];
      if ((totals as readonly string[]).includes(key)) this.total(`${name}_total`, help, read);
      else this.gauge(name, help, read);
    }
  }

  #addEvents(): void {
    const seconds = this.histogram('infini_call_seconds', 'Of calls that have taken effect', [
      'device',
      'event',
    ]);
    const tokens = this.counter('infini_attended_tokens_total', 'Appended by attend', ['device']);
    const segments = this.counter('infini_absorbed_segments_total', 'Absorbed into memories', ['device']);
    const bytes = this.counter('infini_swapped_bytes_total', 'Of states moved', ['device', 'direction']);
    const errors = this.counter('infini_errors_total', 'Calls refused or failed', [
      'device',
      'operation',
      'code',
    ]);
    this.#on<AttendEvent>('attend', (event) => {
      seconds.observe({ device: event.device, event: 'attend' }, event.milliseconds / 1000);
      tokens.inc({ device: event.device }, event.tokens);
    });
    this.#on<AbsorbEvent>('absorb', (event) => {
      seconds.observe({ device: event.device, event: 'absorb' }, event.milliseconds / 1000);
      segments.inc({ device: event.device }, event.segments);
    });
    this.#on<SwapEvent>('swap', ({ device, direction, ...event }) => {
      seconds.observe({ device, event: `swap_${direction}` }, event.milliseconds / 1000);
      bytes.inc({ device, direction }, event.bytes);
    });
    this.#on<ErrorEvent>('error', ({ device, operation, code }) => {
      errors.inc({ device, operation, code: String(code) });
    });
  }

  #on<E>(event: string, listener: (event: E) => void): void {
    const channel = `infini-stream:${event}`;
    const heard = (message: unknown) => listener(message as E);
    subscribe(channel, heard);
    this.#subscriptions.push([channel, heard]);
  }

  close(): void {
    for (const [channel, listener] of this.#subscriptions) unsubscribe(channel, listener);
    this.registry.clear();
  }
}

function collectInto(read: () => number) {
  return function (this: Gauge): void {
    this.set(read());
  };
}

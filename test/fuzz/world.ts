import { type Device, type DeviceTensor, type DType, listDevices, type StreamConfig } from '../../lib';
import { errorClasses, type InfiniError } from '../../lib/errors';
import { openTestDevice } from '../support/device';
import type { Rng } from '../support/rng';
import { detach, resize } from './arrays';
import { Hostile } from './hostile';
import { Subject, Violation } from './subject';

const MOST_SUBJECTS = 8;
const MOST_PENDING = 40;

/** Everything the storm plays with, and the one judge of what may be thrown. */
export class World {
  rng: Rng;
  readonly hostile: Hostile;
  /** Never closed, never given to hostile code: the twins live here. */
  readonly safe = openTestDevice();
  devices: Device[] = [openTestDevice()];
  subjects: Subject[] = [];
  /** Buffers of recent arguments, for sabotage. */
  buffers: ArrayBufferLike[] = [];
  controllers: AbortController[] = [];
  /** Of any dtype and shape, open or closed, at rest or in use. */
  tensors: DeviceTensor[] = [];
  readonly outcomes: Record<string, number> = {};
  readonly #pending = new Map<Promise<unknown>, number>();
  #depth = 0;
  /** What getters and traps may do beside: set by the owner of the operations. */
  interfere: () => void = () => {};

  constructor(rng: Rng) {
    this.rng = rng;
    this.hostile = new Hostile(rng, () => this.#sabotage());
  }

  use(rng: Rng): void {
    this.rng = rng;
    this.hostile.rng = rng;
    this.hostile.notes = [];
  }

  count(outcome: string): void {
    this.outcomes[outcome] = (this.outcomes[outcome] ?? 0) + 1;
  }

  /** Runs what may fail; true when it did not. */
  try(what: string, action: () => unknown): boolean {
    try {
      action();
    } catch (error) {
      this.judge(what, error);
      return false;
    }
    this.count('ok');
    return true;
  }

  /** An error must be one of this package, whole, or the very one that hostile code threw. */
  judge(what: string, error: unknown): string {
    if (error instanceof Violation) throw error;
    if (this.hostile.threw(error)) {
      this.count('hostile');
      return 'hostile';
    }
    const { code, message, name } = (error ?? {}) as InfiniError;
    const known = typeof error === 'object' && Object.hasOwn(errorClasses, code ?? '');
    if (!known && this.#isEngines(error)) {
      this.count('engine');
      return 'engine';
    }
    const right =
      known &&
      (error as object) instanceof errorClasses[code] &&
      name === (code === 'ABORT_ERR' ? 'AbortError' : errorClasses[code].name) &&
      message.length > 10 &&
      message.length < 1000;
    if (!right)
      throw new Violation(`${what} failed with something else than an error of the package`, {
        cause: error,
      });
    this.count(code);
    return code;
  }

  // Thrown by the engine in the place of hostile code: by a proxy that was revoked or breaks the language's rules
  // half-way through, or by a built-in getter that an object without its insides inherits.
  #isEngines(error: unknown): boolean {
    return error instanceof TypeError && /proxy|incompatible receiver/i.test(error.message);
  }

  /** Follows a promise that the package returned: it must be a real one, and settle. */
  follow(
    what: string,
    call: () => unknown,
    done: (value: unknown) => void,
    failed: (code: string, error: unknown) => void,
  ): void {
    let promise: unknown;
    try {
      promise = call();
    } catch (error) {
      throw new Violation(`${what} threw instead of rejecting`, { cause: error });
    }
    if (!(promise instanceof Promise)) throw new Violation(`${what} returned no promise`);
    const watched = promise
      .then(
        (value) => {
          this.count('resolved');
          done(value);
        },
        (error) => failed(this.judge(what, error), error),
      )
      .finally(() => this.#pending.delete(watched));
    this.#pending.set(watched, Date.now());
  }

  get crowded(): boolean {
    return this.#pending.size > MOST_PENDING;
  }

  /** Waits until every promise has settled. */
  async settle(patience: number): Promise<void> {
    const late = new Promise<never>((_, reject) => {
      const stuck = () => reject(new Violation(`${this.#pending.size} promises do not settle`));
      setTimeout(stuck, patience).unref();
    });
    while (this.#pending.size > 0) await Promise.race([Promise.all(this.#pending.keys()), late]);
  }

  config(): StreamConfig {
    const { rng } = this;
    const kvHeads = rng.int(1, 3);
    const heads = kvHeads * rng.int(1, 3);
    const headDim = rng.pick([1, 2, 7, 16, 17, 20, 64]);
    const dtype = rng.pick<DType>(['float32', 'float32', 'bfloat16', 'float16']);
    return {
      heads,
      kvHeads,
      headDim,
      dtype,
      valueDim: rng.pick([undefined, 1, 5, 16, 24, 65]),
      segmentLength: rng.pick([1, 2, 5, 15, 16, 17, 64, 65, 100]),
      rule: rng.pick(['linear', 'delta', undefined] as const),
      gate: rng.pick([
        undefined,
        0.5,
        Array.from({ length: heads }, () => rng.normal()),
        new Float64Array(heads),
      ]),
      scale: rng.pick([undefined, 1, 1e-3]),
      rope: headDim % 2 === 0 ? rng.pick([undefined, null, { theta: 10_000 }]) : null,
      emptyRead: rng.pick(['gated', 'local', undefined] as const),
    };
  }

  device(): Device {
    if (this.devices.length === 0 || this.rng.uniform() < 0.02) {
      this.devices.push(openTestDevice({ threads: this.rng.int(1, 6) }));
    }
    return this.rng.pick(this.devices);
  }

  subject(): Subject {
    if (this.subjects.length < 3 || this.rng.uniform() < 0.05) {
      const device = this.device();
      try {
        this.adopt(Subject.make(device, this.safe, this.config()));
      } catch (error) {
        if (this.judge('createStream', error) !== 'ERR_CLOSED') throw error;
        this.devices = this.devices.filter((other) => other !== device);
        return this.subject();
      }
    }
    return this.rng.pick(this.subjects);
  }

  adopt(subject: Subject): void {
    this.subjects.push(subject);
    if (this.subjects.length > MOST_SUBJECTS) this.drop(this.subjects[0]);
  }

  drop(subject: Subject): void {
    this.subjects = this.subjects.filter((other) => other !== subject);
    subject.close();
  }

  /** A tensor that may fit a stream, or not. */
  tensor(): DeviceTensor {
    const { rng } = this;
    if (this.tensors.length < 4 || rng.uniform() < 0.2) {
      const { heads, kvHeads, headDim, valueDim, dtype } = this.subject().stream.config;
      const shape = [rng.pick([1, 2, 17]), rng.pick([heads, kvHeads]), rng.pick([headDim, valueDim])];
      if (rng.uniform() < 0.3) shape.splice(0, 3, shape[0] * shape[1] * shape[2]);
      this.tensors.push(
        this.safe.tensor(shape, rng.uniform() < 0.9 ? dtype : rng.pick(['float32', 'float16'])),
      );
      if (this.tensors.length > 12) this.tensors.shift();
    }
    return rng.pick(this.tensors);
  }

  remember(buffer: ArrayBufferLike): void {
    this.buffers.push(buffer);
    if (this.buffers.length > 16) this.buffers.shift();
  }

  // What hostile getters, traps and conversions do to the world in the middle of a call.
  #sabotage(): void {
    if (this.#depth > 1) return;
    this.#depth++;
    try {
      const { rng } = this;
      const buffer = this.buffers.length > 0 ? rng.pick(this.buffers) : new ArrayBuffer(8);
      rng.pick<() => void>([
        () => detach(buffer),
        () => resize(buffer, rng.pick([0, 1, 8, buffer.byteLength >> 1, buffer.byteLength + 8])),
        () => this.subjects.length > 0 && rng.uniform() < 0.3 && this.drop(rng.pick(this.subjects)),
        () => rng.uniform() < 0.2 && this.closeDevice(),
        () => this.controllers.length > 0 && this.abort(rng.pick(this.controllers)),
        () => rng.uniform() < 0.1 && globalThis.gc?.(),
        () => listDevices(),
        () => this.try('close', () => this.tensor().close()),
        () => this.interfere(),
      ])();
      this.hostile.notes.push('sabotage');
    } finally {
      this.#depth--;
    }
  }

  abort(controller: AbortController, reason?: unknown): void {
    try {
      controller.abort(reason);
    } catch {
      // a frozen signal, or one with traps
    }
  }

  closeDevice(): void {
    const device = this.devices.pop();
    if (!device) return;
    device.close();
    for (const subject of [...this.subjects]) if (subject.stream.closed) this.drop(subject);
  }
}

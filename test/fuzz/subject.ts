import type { Device, MemoryStream, StreamConfig, Tensor } from '../../lib';
import { type StreamState, stateOf } from '../support/state';
import { bytesOf } from '../support/tensors';

export interface Inputs {
  q: Tensor;
  k?: Tensor;
  v?: Tensor;
}

export class Violation extends Error {}

/**
 * A stream under attack and its twin, to which only the calls that succeeded are made, with plain arrays and
 * attendSync: whatever else happened to the stream must not show in its results or its state.
 */
export class Subject {
  /** Promises that have not settled; and those among them whose calls are certainly queued, not refused at once. */
  pending = 0;
  queued = 0;
  #closed = false;
  /** A call of unknown content may have changed the stream: the twin is worth nothing until it is a fork again. */
  #adrift = false;
  #twin: MemoryStream;
  /** Calls in the order they were made; those at the front whose results are known have been repeated. */
  readonly #slots: { known: boolean; repeat: () => void }[] = [];

  constructor(
    readonly stream: MemoryStream,
    twin: MemoryStream,
  ) {
    this.#twin = twin;
  }

  static make(device: Device, safe: Device, config: StreamConfig): Subject {
    return new Subject(device.createStream(config), safe.createStream(config));
  }

  // A twin that was forked from the stream lives on the stream's device, and may be closed with it.
  get #lost(): boolean {
    return this.#adrift || this.#twin.closed;
  }

  /**
   * Takes a call's place in the order: the twin repeats what is given to the returned function (nothing, for a call
   * that changed nothing) once all earlier calls are known. Results of batches are seen late.
   */
  slot(): (repeat?: () => void) => void {
    const slot = { known: false, repeat: () => {} };
    this.#slots.push(slot);
    return (repeat = () => {}) => {
      Object.assign(slot, { known: true, repeat });
      while (this.#slots[0]?.known) this.#slots.shift()?.repeat();
    };
  }

  lose(): void {
    this.#adrift = true;
  }

  /** Repeats a call that succeeded. */
  agree(inputs: Inputs, result: Tensor): void {
    if (this.#lost) return;
    if (!bytesOf(this.#repeat(inputs)).equals(bytesOf(result)))
      throw new Violation('a result differs from its twin');
  }

  /** Repeats a call that was refused for its numbers. */
  agreeOnRefusal(inputs: Inputs, error: { code?: string; tensor?: string; token?: number }): void {
    if (this.#lost) return;
    try {
      this.#repeat(inputs);
    } catch (twin) {
      const same = (['code', 'tensor', 'token'] as const).every(
        (key) => (twin as typeof error)[key] === error[key],
      );
      if (!same) throw new Violation('a refusal differs from its twin', { cause: twin });
      return;
    }
    throw new Violation('a call was refused that its twin accepts');
  }

  /** What the twin makes of a call that succeeded; null when it is of no use. */
  repeat(inputs: Inputs): Tensor | null {
    return this.#lost ? null : this.#repeat(inputs);
  }

  #repeat({ q, k, v }: Inputs): Tensor {
    return k && v ? this.#twin.attendSync({ q, k, v }) : this.#twin.retrieveSync({ q });
  }

  reset(): void {
    this.stream.reset();
    this.slot()(() => {
      if (!this.#lost) this.#twin.reset();
    });
  }

  fork(): Subject {
    const stream = this.stream.fork();
    const behind = this.#lost || this.#slots.length > 0;
    const copy = new Subject(stream, behind ? stream.fork() : this.#twin.fork());
    copy.#adrift = this.#adrift;
    return copy;
  }

  /** In a slot: a twin for what was copied of the stream by the call that the slot is for; null when it is of no use. */
  copyOfTwin(): MemoryStream | null {
    return this.#lost ? null : this.#twin.fork();
  }

  /** Compares everything that can be seen, where nothing is pending. */
  compare(): void {
    if (this.#closed || this.pending > 0) return;
    if (this.#adrift) {
      this.#twin.close();
      this.#twin = this.stream.fork();
      this.#adrift = false;
    }
    expectSame(stateOf(this.stream), stateOf(this.#twin), 'a stream differs from its twin');
  }

  get closed(): boolean {
    return this.#closed;
  }

  close(): void {
    this.#closed = true;
    this.stream.close();
    if (this.pending === 0) this.#twin.close();
  }

  /** Counts a promise until the returned function is called; calls that were done may settle after close(). */
  begin(queued = false): () => void {
    this.pending++;
    if (queued) this.queued++;
    return () => {
      this.pending--;
      if (queued) this.queued--;
      if (this.#closed && this.pending === 0) this.#twin.close();
    };
  }
}

export function expectSame(actual: StreamState, wanted: StreamState, what: string): void {
  const keys = Object.keys(wanted) as (keyof StreamState)[];
  const different = keys.filter((key) => JSON.stringify(actual[key]) !== JSON.stringify(wanted[key]));
  if (different.length > 0) throw new Violation(`${what} in ${different}`);
}

import type { Device, DType, StreamConfig } from '../../lib';
import type { InfiniError } from '../../lib/errors';
import { openTestDevice } from '../support/device';
import type { Rng } from '../support/rng';
import { Witness } from './witness';

const PATIENCE = 120_000;
const DEVICES = 3;

/** All streams of the soak, on a few handles of the device, and the calls that are under way. */
export class Crowd {
  readonly devices: Device[];
  readonly members: Witness[] = [];
  readonly outcomes: Record<string, number> = {};
  /** Errors that any call may meet. */
  mayFail: (error: unknown) => boolean = () => false;
  readonly #configs: StreamConfig[];
  readonly #pending = new Set<Promise<unknown>>();

  constructor(
    public rng: Rng,
    size: number,
  ) {
    this.devices = Array.from({ length: DEVICES }, () => openTestDevice({ threads: rng.int(1, 4) }));
    this.#configs = Array.from({ length: Math.ceil(size / 10) }, () => randomConfig(rng));
    while (this.members.length < size) this.members.push(this.newcomer());
  }

  newcomer(device = this.rng.pick(this.devices)): Witness {
    return new Witness(device.createStream(this.rng.pick(this.#configs)), device);
  }

  count(outcome: string): void {
    this.outcomes[outcome] = (this.outcomes[outcome] ?? 0) + 1;
  }

  /** One takes the place of another, which is closed, or left to the garbage collector. */
  replace(old: Witness, next: Witness): void {
    const place = this.members.indexOf(old);
    if (place < 0) throw new Error('a stream was replaced twice');
    this.members[place] = next;
    if (old.pending > 0 || this.rng.uniform() < 0.7) old.close();
    else this.count('forgotten');
  }

  /** Some distinct ones of one device handle; of one configuration too, if asked. */
  some(most: number, alike: boolean): Witness[] {
    const first = this.rng.pick(this.members);
    const others = this.members.filter(
      (other) =>
        other !== first &&
        other.device === first.device &&
        (!alike || JSON.stringify(other.stream.config) === JSON.stringify(first.stream.config)),
    );
    const start = this.rng.int(0, others.length);
    return [first, ...others.slice(start, start + this.rng.int(0, most - 1))];
  }

  /** An error of a valid call must have one of these codes, or be one that may come at any time. */
  judge(what: string, error: unknown, excused: readonly string[] = []): void {
    const { code } = error as InfiniError;
    if (!excused.includes(code) && !this.mayFail(error))
      throw new Error(`a valid ${what} failed`, { cause: error });
    this.count(code);
  }

  /** Follows a call to its end. An error must be one of the `excused`, at that time. */
  follow<T>(
    what: string,
    call: Promise<T>,
    done: (value: T) => void,
    failed: () => void,
    excused: () => string[],
  ): void {
    const watched = call
      .then(
        (value) => {
          this.count(what);
          done(value);
        },
        (error) => {
          this.judge(what, error, excused());
          failed();
        },
      )
      .finally(() => this.#pending.delete(watched));
    this.#pending.add(watched);
  }

  get pending(): number {
    return this.#pending.size;
  }

  async settle(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${this.#pending.size} promises do not settle`)), PATIENCE);
    });
    try {
      while (this.#pending.size > 0) await Promise.race([Promise.all(this.#pending), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** One of the device handles is closed with everything on it. */
  closeDevice(): void {
    const at = this.rng.int(0, this.devices.length - 1);
    const old = this.devices[at];
    this.devices[at] = openTestDevice({ threads: this.rng.int(1, 4) });
    for (const member of this.members.filter(({ device }) => device === old)) {
      member.closed = true;
      this.members[this.members.indexOf(member)] = this.newcomer();
    }
    old.close();
    this.count('closed devices');
  }
}

function randomConfig(rng: Rng): StreamConfig {
  const kvHeads = rng.int(1, 2);
  const heads = kvHeads * rng.int(1, 2);
  const headDim = 2 * rng.int(1, 12);
  return {
    heads,
    kvHeads,
    headDim,
    valueDim: rng.int(1, 24),
    segmentLength: rng.pick([1, 3, 8, 16, 17, 50]),
    rule: rng.pick(['linear', 'delta']),
    gate: rng.pick([0, Array.from({ length: heads }, () => 3 * rng.normal())]),
    rope: rng.pick([null, { theta: 10_000 }]),
    emptyRead: rng.pick(['gated', 'local']),
    dtype: rng.pick<DType>(['float32', 'float32', 'bfloat16', 'float16']),
  };
}

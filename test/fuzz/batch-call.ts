import type { Batch, StreamConfig, Tensor } from '../../lib';
import { anyArray } from './arrays';
import { Subject, Violation } from './subject';
import { prepare, signalOf } from './valid-call';
import type { World } from './world';

type AnyCall = (...args: unknown[]) => unknown;

/** attendBatch on some subjects, all valid or some spoiled: each entry is judged by itself. */
export function flexibleBatch(world: World): void {
  const { rng, hostile } = world;
  const subjects = [...new Set(Array.from({ length: rng.int(0, 5) }, () => world.subject()))];
  const entries = subjects.map((subject) => {
    const { input, copies } = prepare(world, subject, 'attend');
    const entry: Record<string, unknown> = { stream: subject.stream, ...input };
    const spoiled = rng.uniform() < 0.2;
    if (spoiled) spoil(world, entry, ['stream', 'q', 'k', 'v', 'out', 'extra']);
    return { subject, copies, spoiled, entry: spoiled && rng.uniform() < 0.5 ? hostile.lure(entry) : entry };
  });
  const given = entries.map(({ entry }): unknown => entry);
  const more = rng.uniform() < 0.2 ? [hostile.anything(), given[0]] : [];
  const options: { signal?: AbortSignal } = {};
  if (rng.uniform() < 0.2) options.signal = signalOf(world);
  hostile.notes.push(`attendBatch of ${given.length}`);
  let slots: ReturnType<Subject['slot']>[] = [];
  const ends = subjects.map((subject) => subject.begin());

  const judgeEntry = (i: number, result: PromiseSettledResult<Tensor>) => {
    const { subject, copies, spoiled } = entries[i];
    if (result.status === 'fulfilled') {
      if (spoiled) subject.lose();
      slots[i](() => spoiled || subject.agree(copies, result.value));
      return;
    }
    const code = world.judge('an entry', result.reason);
    const refused = code === 'ERR_NON_FINITE' && !spoiled;
    slots[i](() => refused && subject.agreeOnRefusal(copies, result.reason));
    const excused =
      spoiled ||
      refused ||
      (code === 'ERR_CLOSED' && subject.closed) ||
      (code === 'ABORT_ERR' && options.signal?.aborted);
    if (!excused) throw new Violation('a valid entry failed', { cause: result.reason });
  };
  world.follow(
    'attendBatch',
    () => {
      const promise = (world.safe.attendBatch as AnyCall).call(world.safe, [...given, ...more], options);
      slots = subjects.map((subject) => subject.slot()); // behind what its getters did
      return promise;
    },
    (value) => {
      const results = value as PromiseSettledResult<Tensor>[];
      if (results.length !== given.length + more.length) throw new Violation('another number of outcomes');
      for (const result of results.slice(given.length)) {
        if (result.status === 'rejected') world.judge('an entry too many', result.reason);
        else subjects[0].lose(); // its getters said something else the second time
      }
      for (const i of entries.keys()) judgeEntry(i, results[i]);
      for (const end of ends) end();
    },
    (_, error) => {
      throw new Violation('a batch was rejected as a whole', { cause: error });
    },
  );
}

function spoil(world: World, input: Record<string, unknown>, keys: string[]): void {
  const { rng, hostile } = world;
  input[rng.pick(keys)] = rng.pick([hostile.anything, () => anyArray(hostile), () => world.tensor()])();
}

/** Some streams of one configuration that step together, each with its twin. */
export class Team {
  readonly subjects: Subject[];
  readonly batch: Batch;

  constructor(world: World, config: StreamConfig) {
    const first = Subject.make(world.safe, world.safe, config);
    this.subjects = [first, ...Array.from({ length: world.rng.int(0, 5) }, () => first.fork())];
    this.batch = world.safe.createBatch(this.subjects.map(({ stream }) => stream));
  }

  /** A token for each, which is worth as much as a call of one token. */
  step(world: World): void {
    const { rng, hostile } = world;
    const { subjects, batch } = this;
    const parts = subjects.map((subject) => prepare(world, subject, 'attend', 1).copies);
    const input: Record<string, unknown> = {
      q: pack(parts.map(({ q }) => q)),
      k: pack(parts.map(({ k }) => k as Tensor)),
      v: pack(parts.map(({ v }) => v as Tensor)),
    };
    const spoiled = rng.uniform() < 0.2;
    if (spoiled) spoil(world, input, ['q', 'k', 'v', 'out', 'more']);
    const isAsync = rng.uniform() < 0.7;
    const options: { signal?: AbortSignal } = {};
    if (isAsync && rng.uniform() < 0.2) options.signal = signalOf(world);
    hostile.notes.push(`${isAsync ? 'step' : 'stepSync'} of ${parts.length}`);
    const wasBusy = subjects.some(({ pending }) => pending > 0);
    const slots = subjects.map((subject) => subject.slot());
    const accept = (result: unknown) => {
      if (spoiled) for (const subject of subjects) subject.lose();
      const output = spoiled ? pack([]) : (result as Tensor).slice();
      const width = output.length / parts.length;
      for (const [i, slot] of slots.entries()) {
        const own = output.subarray(i * width, (i + 1) * width);
        slot(() => spoiled || subjects[i].agree(parts[i], own));
      }
    };
    const refuse = (code: string, error: unknown) => {
      const excused =
        spoiled ||
        code === 'ERR_NON_FINITE' ||
        (code === 'ERR_CLOSED' && batch.closed) ||
        (code === 'ERR_BUSY' && !isAsync && wasBusy) ||
        (code === 'ABORT_ERR' && options.signal?.aborted);
      const { stream } = (error ?? {}) as { stream?: number };
      for (const [i, slot] of slots.entries()) {
        const blamed = code === 'ERR_NON_FINITE' && i === stream && !spoiled;
        slot(() => blamed && subjects[i].agreeOnRefusal(parts[i], error as { code?: string }));
      }
      if (!excused) throw new Violation('a valid step failed', { cause: error });
    };
    if (!isAsync) {
      let result: unknown;
      try {
        result = (batch.stepSync as AnyCall).call(batch, input);
      } catch (error) {
        refuse(world.judge('stepSync', error), error);
        return;
      }
      world.count('ok');
      accept(result);
      return;
    }
    const ends = subjects.map((subject) => subject.begin());
    const over =
      <A extends unknown[]>(then: (...args: A) => void) =>
      (...args: A) => {
        then(...args);
        for (const end of ends) end();
      };
    const call = () => (batch.step as AnyCall).call(batch, input, options);
    world.follow('step', call, over(accept), over(refuse));
  }

  close(): void {
    this.batch.close();
    for (const subject of this.subjects) subject.close();
  }
}

function pack(rows: Tensor[]): Tensor {
  const Class = (rows[0] instanceof Uint16Array ? Uint16Array : Float32Array) as Float32ArrayConstructor;
  const packed = new Class(rows.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const row of rows) {
    packed.set(row, at);
    at += row.length;
  }
  return packed;
}

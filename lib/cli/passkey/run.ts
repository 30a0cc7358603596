import type { Model, Session } from '../../index';
import { Haystack, type HaystackName } from './haystack';
import type { Cost, Ledger, Said } from './ledger';
import { type Cell, type Depth, drawQuestions, type Question } from './questions';
import { close, fork, Reader, type Reading } from './reading';
import { Task } from './task';

export interface TableSettings {
  /** Tokens of the documents, in ascending order. */
  lengths: number[];
  depths: Depth[];
  /** Keys of each cell; undefined: 40, above 256K 20. */
  keys: number | undefined;
  haystack: HaystackName;
  seed: number;
}

export const keysOf = ({ keys }: Pick<TableSettings, 'keys'>, length: number): number =>
  keys ?? (length <= 256 << 10 ? 40 : 20);

export interface Watch {
  signal: AbortSignal;
  /** Called once, before the first token. */
  onStart?: (tokens: number) => void;
  /** Tokens fed so far. */
  onProgress?: (tokens: number) => void;
}

/** Of how many documents the question comes at token `asked`, so that their length is `length`. */
export interface Stop {
  length: number;
  asked: number;
  keys: number;
}

/** Documents that are read side by side, and where they stop to be asked, in ascending order. */
export interface Group {
  depth: Depth;
  questions: Question[];
  stops: Stop[];
}

/** Something to do when the base session has read `at` tokens of the haystack. */
type Step = { at: number } & ({ group: Group } | { untold: number });

/** Asks what the ledger does not have yet, and enters it there. */
export async function runTable(
  model: Model,
  settings: TableSettings,
  ledger: Ledger,
  { signal, onStart, onProgress = () => {} }: Watch,
): Promise<void> {
  const task = new Task(model);
  const haystack = Haystack.named(settings.haystack, model);
  const steps = plan(settings, ledger, haystack, task);
  onStart?.(plannedTokens(steps, task));

  const reader = new Reader(model, task, signal, onProgress);
  const cost = meter(reader);
  using base = model.createSession();
  for (const step of steps) {
    await reader.readTo([{ session: base, text: haystack }], step.at);
    if ('untold' in step) {
      const [answer] = await reader.ask([base]);
      const tokens = Array.from(answer);
      ledger.addUntold({ length: step.untold, tokens, read: model.decode(tokens), ...cost() });
      continue;
    }
    const { depth, questions } = step.group;
    for await (const { length, readings } of read(reader, base, haystack, step.group)) {
      const sessions = readings.map(({ session }) => session);
      const told = await reader.ask(sessions);
      const forgotten = await reader.ask(sessions, { forget: true });
      const said = (key: string, tokens: Int32Array): Said => ({
        read: model.decode(tokens),
        right: task.right(key, tokens),
      });
      const answers = questions.slice(0, readings.length).map(({ key, place }, i) => ({
        key,
        place,
        ...said(key, told[i]),
        reset: said(key, forgotten[i]),
      }));
      ledger.addCell({ depth, length, answers, ...cost() });
    }
  }
}

/** The sessions of a group at each of its stops, just before the question. */
export async function* read(
  reader: Reader,
  base: Session,
  haystack: Haystack,
  { questions, stops }: Group,
): AsyncGenerator<{ length: number; readings: Reading[] }> {
  const readings = await fork(reader, base, haystack, questions);
  try {
    for (const [i, { length, asked, keys }] of stops.entries()) {
      close(readings.splice(mostKeys(stops.slice(i))));
      await reader.readTo(readings, asked);
      yield { length, readings: readings.slice(0, keys) };
    }
  } finally {
    close(readings);
  }
}

const mostKeys = (stops: readonly Stop[]): number => Math.max(...stops.map(({ keys }) => keys));

/** All that is left to do, in the order in which the base session comes by. */
function plan(settings: TableSettings, ledger: Ledger, haystack: Haystack, task: Task): Step[] {
  const { lengths, depths, seed } = settings;
  const steps: Step[] = [];
  const add = (depth: Depth, stops: Stop[]) => {
    const cell: Cell = { depth, length: stops[0].length };
    const questions = drawQuestions(haystack, task, cell, mostKeys(stops), seed);
    const at = Math.min(...questions.map(({ place }) => place));
    steps.push({ at, group: { depth, questions, stops } });
  };
  const stops = lengths.map((length) => ({
    length,
    asked: length - task.asking,
    keys: keysOf(settings, length),
  }));
  for (const depth of depths) {
    const left = stops.filter(({ length, keys }) => !ledger.cell({ depth, length }, keys));
    if (depth !== 'start') for (const stop of left) add(depth, [stop]);
    else if (left.length > 0) add(depth, left);
  }
  for (const { length, asked } of stops) {
    if (!ledger.untold(length)) steps.push({ at: asked, untold: length });
  }
  return steps.sort((a, b) => a.at - b.at);
}

/** Exactly what will be fed. */
function plannedTokens(steps: readonly Step[], { asking }: Task): number {
  let tokens = Math.max(0, ...steps.map(({ at }) => at)); // the base session
  for (const step of steps) {
    if ('untold' in step) {
      tokens += asking;
      continue;
    }
    const { questions, stops } = step.group;
    tokens += Math.max(...questions.map(({ place }) => place)) - step.at; // the session that the others leave
    for (const [i, { place }] of questions.entries()) {
      const mine = stops.filter(({ keys }) => i < keys);
      tokens += mine[mine.length - 1].asked - place + 2 * mine.length * asking;
    }
  }
  return tokens;
}

/** Returns the function that says what was spent since its last call. */
function meter(reader: Reader): () => Cost {
  let fed = reader.fed;
  let begin = performance.now();
  return () => {
    const cost = { fed: reader.fed - fed, seconds: (performance.now() - begin) / 1000 };
    fed = reader.fed;
    begin = performance.now();
    return cost;
  };
}

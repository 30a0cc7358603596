import type { Model } from '../../index';
import { Haystack, type HaystackName, hide, type Text } from '../passkey/haystack';
import { Reader } from '../passkey/reading';
import { DIGITS, Task } from '../passkey/task';
import { Random } from '../random';

export interface DemoSettings {
  tokens: number;
  seed: number;
  /** Share of the document before the key; undefined: drawn. */
  depth: number | undefined;
  haystack: HaystackName;
}

/** A pass key, the place of its statement's first token, and the document around it. */
export interface HiddenKey {
  key: string;
  place: number;
  text: Text;
}

export interface DemoResult {
  settings: DemoSettings;
  key: string;
  place: number;
  /** Of `place` in the document. */
  depth: number;
  answer: string;
  right: boolean;
  /** What the same session answers when it was emptied before the question. */
  reset: string;
  fed: number;
  seconds: number;
  tokensPerSecond: number;
  bytes: { atStart: number; atEnd: number; keyValueCache: number };
}

/** Draws the key and where it is; a sentence begins there. */
export function hideKey(model: Model, { tokens, seed, depth, haystack: name }: DemoSettings): HiddenKey {
  const random = new Random(seed);
  const key = Array.from({ length: DIGITS }, () => random.below(10)).join('');
  const share = depth ?? random.below(2 ** 30) / 2 ** 30;
  const task = new Task(model);
  const last = tokens - task.asking - task.statement(key, 1).length;
  if (last < 0) throw new Error(`${tokens} tokens are too few for a statement and a question`);
  const haystack = Haystack.named(name, model);
  let place = Math.floor(share * last);
  while (!haystack.isBoundary(place)) place--;
  return { key, place, text: hide(haystack, task.statement(key, place), place) };
}

export async function readDocument(
  model: Model,
  settings: DemoSettings,
  { key, place, text }: HiddenKey,
  { signal, onProgress }: { signal: AbortSignal; onProgress: (tokens: number, bytesHeld: number) => void },
): Promise<DemoResult> {
  const task = new Task(model);
  using session = model.createSession();
  const atStart = session.byteLength;
  const reader = new Reader(model, task, signal, (fed) =>
    onProgress(Math.min(fed, settings.tokens), session.byteLength),
  );
  const begin = performance.now();
  await reader.readTo([{ session, text }], settings.tokens - task.asking);
  const [answer] = await reader.ask([session]);
  const seconds = (performance.now() - begin) / 1000;
  const { fed } = reader;
  const [reset] = await reader.ask([session], { forget: true });
  const { layers, kvHeads, headDim } = model.config;
  return {
    settings,
    key,
    place,
    depth: place / settings.tokens,
    answer: model.decode(answer),
    right: task.right(key, answer) === DIGITS,
    reset: model.decode(reset),
    fed,
    seconds,
    tokensPerSecond: fed / seconds,
    bytes: {
      atStart,
      atEnd: session.byteLength,
      // Keys and values of every token and layer, in float32 as they are here.
      keyValueCache: layers * 2 * kvHeads * headDim * 4 * settings.tokens,
    },
  };
}

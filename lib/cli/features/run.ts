import { type DeviceInfo, type MemoryStream, openDevice, type Rule } from '../../index';
import { Random } from '../random';
import { ALARM, type Score, score } from '../score';
import type { SourceText } from '../source';
import { drawPlan, hide, type Needle, type Plan } from './document';
import { Features, openings } from './features';
import { type PassTimes, streamText } from './pass';
import { readKey } from './reader';

export interface FeatureSettings {
  tokens: number;
  seed: number;
  needles: number;
  digits: number;
  device: string;
  heads: number;
  headDim: number;
  valueDim: number;
  segment: number;
  rule: Rule;
}

/** What is tried: the memory itself, and the same reading where the memory can not know the answer. */
export const READINGS = ['memory', 'noKeys', 'reset', 'otherMarker'] as const;
export type Reading = (typeof READINGS)[number];

export interface FeatureResult {
  settings: FeatureSettings;
  text: { name: string; characters: number; rounds: number };
  device: DeviceInfo;
  marker: string;
  otherMarker: string;
  /** Tokens whose key opened, with the sentences in the text and without them. */
  opened: { document: number; withoutSentences: number };
  needles: (Needle & { depth: number; read: Record<Reading, string> })[];
  scores: Record<Reading, Score>;
  recalled: boolean;
  controlsAtChance: boolean;
  times: PassTimes;
  bytes: { atStart: number; stream: number; memory: number; keyValueCache: number };
}

export type Watcher = (label: string, total: number) => { update(done: number): void; stop(): void };

interface Setting {
  stream: MemoryStream;
  features: Features;
  settings: FeatureSettings;
  signal: AbortSignal;
  watch: Watcher;
}

async function pass(
  { stream, features, settings, signal, watch }: Setting,
  label: string,
  text: string,
  marker: string,
) {
  const opened = openings(text, marker, settings.digits);
  const progress = watch(label, text.length);
  try {
    const times = await streamText(stream, text, opened, features, signal, (done) => progress.update(done));
    return { times, opened: opened.length };
  } finally {
    progress.stop();
  }
}

/** The whole demonstration, but for showing it. */
export async function runFeatures(
  source: SourceText,
  settings: FeatureSettings,
  signal: AbortSignal,
  watch: Watcher,
): Promise<FeatureResult> {
  const { heads, headDim, valueDim, segment, rule, digits, tokens } = settings;
  const random = new Random(settings.seed);
  const plan = drawPlan(random, source.text, settings.needles, digits);
  const document = hide(source.text, plan, tokens, segment);
  const without = hide(source.text, { ...plan, secrets: [] }, tokens, segment);
  const features = new Features({ heads, headDim, valueDim }, settings.seed);

  using device = openDevice(settings.device as Parameters<typeof openDevice>[0]);
  const config = { heads, headDim, valueDim, segmentLength: segment, rule };
  using stream = device.createStream(config);
  const atStart = stream.byteLength;
  const main = await pass(
    { stream, features, settings, signal, watch },
    'with the pass keys',
    document.text,
    plan.marker,
  );

  using forgetful = stream.fork();
  forgetful.reset();
  using untold = device.createStream(config);
  const control = await pass(
    { stream: untold, features, settings, signal, watch },
    'without them      ',
    without.text,
    plan.marker,
  );

  const readAll = (from: MemoryStream, marker: string) =>
    readPlan(from, features, plan, marker, digits, random);
  const read: Record<Reading, string[]> = {
    memory: readAll(stream, plan.marker),
    noKeys: readAll(untold, plan.marker),
    reset: readAll(forgetful, plan.marker),
    otherMarker: readAll(stream, plan.otherMarker),
  };
  const hidden = plan.secrets.map(({ key }) => key);
  const scores = byReading((reading) => score(hidden, read[reading]));
  const kvHeads = stream.config.kvHeads;
  return {
    settings,
    text: { name: source.name, characters: source.text.length, rounds: tokens / source.text.length },
    device: device.info,
    marker: plan.marker,
    otherMarker: plan.otherMarker,
    opened: { document: main.opened, withoutSentences: control.opened },
    needles: document.needles.map((needle, i) => ({
      ...needle,
      depth: needle.token / tokens,
      read: byReading((reading) => read[reading][i]),
    })),
    scores,
    recalled: scores.memory.keysRight === scores.memory.keys,
    controlsAtChance: READINGS.every((reading) => reading === 'memory' || scores[reading].byChance > ALARM),
    times: main.times,
    bytes: {
      atStart,
      stream: stream.byteLength,
      memory: kvHeads * headDim * (valueDim * 4 + 8),
      // Table 1 of the paper: (d_key + d_value) x H for every token of the past, here in float32 and one layer.
      keyValueCache: (headDim + valueDim) * kvHeads * tokens * 4,
    },
  };
}

function readPlan(
  stream: MemoryStream,
  features: Features,
  plan: Plan,
  marker: string,
  digits: number,
  random: Random,
): string[] {
  const retrieve = (q: Float32Array) => stream.retrieveSync({ q });
  // Only the labels are handed on: what is right is known to the score alone.
  return plan.secrets.map(({ label }) => readKey(retrieve, features, marker, label, digits, random));
}

function byReading<T>(make: (reading: Reading) => T): Record<Reading, T> {
  return Object.fromEntries(READINGS.map((reading) => [reading, make(reading)])) as Record<Reading, T>;
}

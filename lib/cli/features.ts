import { Option } from 'commander';
import type { Rule } from '../index';
import { LABELS } from './features/document';
import { introduction, report } from './features/report';
import { type FeatureSettings, runFeatures } from './features/run';
import { interruptible } from './interrupt';
import { whole } from './options';
import { Progress } from './progress';
import { loadText } from './source';

const LEAST_CHARACTERS = 1_000_000;
const MOST_DIGITS = 32;

export interface FeatureOptions extends Omit<FeatureSettings, 'tokens' | 'seed' | 'rule'> {
  file?: string;
  tokens?: number;
  seed?: number;
  rule?: Rule;
  json?: boolean;
}

const some = (flags: string, description: string, most?: number): Option =>
  new Option(flags, description).argParser(whole(1, most));

/** What only `demo --features` takes. */
export const featureOptions = (): Option[] => [
  new Option('--file <path>', 'this text (UTF-8) instead of the novel that comes with the package'),
  some('--needles <n>', 'pass keys to hide', LABELS.length).default(5),
  some('--digits <n>', 'digits of a pass key', MOST_DIGITS).default(5),
  some('--heads <n>', 'heads, each with its own hash').default(16),
  some('--head-dim <n>', 'components of a key: the slots of a head').default(64),
  some('--value-dim <n>', 'components of a value').default(16),
  some('--segment <n>', 'segment length').default(128),
];

/** `demo --features`: features written by hand in place of a model. */
export async function showFeatures({
  file,
  json,
  rule = 'delta',
  ...options
}: FeatureOptions): Promise<void> {
  const source = loadText(file);
  const tokens = options.tokens ?? Math.max(LEAST_CHARACTERS, source.text.length);
  const seed = options.seed ?? Math.floor(Math.random() * 1e6);
  const settings: FeatureSettings = { ...options, rule, tokens, seed };
  if (!json) console.log(introduction(source.name, source.text.length, settings));

  await interruptible(async (signal) => {
    const watch = (label: string, total: number) => new Progress(label, total, 'tokens');
    const result = await runFeatures(source, settings, signal, watch);
    console.log(json ? JSON.stringify(result, null, 2) : `\n${report(result)}`);
    if (!result.recalled || !result.controlsAtChance) process.exitCode = 1;
  });
}

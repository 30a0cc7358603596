import { Command, Option } from 'commander';
import { LABELS } from './demo/document';
import { introduction, report } from './demo/report';
import { type DemoSettings, runDemo } from './demo/run';
import { loadText } from './demo/text';
import { whole } from './options';
import { Progress } from './progress';

const LEAST_TOKENS = 1_000_000;
/** The text is held as one string, and a string has a limit. */
const MOST_TOKENS = 500_000_000;
const MOST_DIGITS = 32;
const MOST_SEED = 2 ** 32 - 1;

interface DemoOptions extends Omit<DemoSettings, 'tokens' | 'seed'> {
  file?: string;
  seed?: number;
  tokens?: number;
  json?: boolean;
}

export function demoCommand(): Command {
  return new Command('demo')
    .description(
      'hide pass keys in a million tokens of real text and read them back through the memory alone',
    )
    .option('--file <path>', 'stream this text (UTF-8) instead of the novel that comes with the package')
    .option(
      '--tokens <n>',
      'characters to stream (default: the whole text, at least 1,000,000)',
      whole(1, MOST_TOKENS),
    )
    .option(
      '--seed <n>',
      'draws the pass keys, labels, hashes and codes (default: a new one)',
      whole(0, MOST_SEED),
    )
    .option('--needles <n>', 'pass keys to hide', whole(1, LABELS.length), 5)
    .option('--digits <n>', 'digits of a pass key', whole(1, MOST_DIGITS), 5)
    .option('--device <id>', 'auto, cpu, cuda or cuda:<n>', 'auto')
    .option('--heads <n>', 'heads, each with its own hash', whole(1), 16)
    .option('--head-dim <n>', 'components of a key: the slots of a head', whole(1), 64)
    .option('--value-dim <n>', 'components of a value', whole(1), 16)
    .option('--segment <n>', 'segment length', whole(1), 128)
    .addOption(
      new Option('--rule <rule>', 'how a segment is absorbed').choices(['delta', 'linear']).default('delta'),
    )
    .option('--json', 'print the result as JSON')
    .action(demo);
}

async function demo({ file, json, ...options }: DemoOptions): Promise<void> {
  const source = loadText(file);
  const tokens = options.tokens ?? Math.max(LEAST_TOKENS, source.text.length);
  const seed = options.seed ?? Math.floor(Math.random() * 1e6);
  const settings: DemoSettings = { ...options, tokens, seed };
  if (!json) console.log(introduction(source.name, source.text.length, settings));

  const controller = new AbortController();
  const interrupt = () => controller.abort(new Error('interrupted'));
  process.once('SIGINT', interrupt);
  try {
    const watch = (label: string, total: number) => new Progress(label, total, 'tokens');
    const result = await runDemo(source, settings, controller.signal, watch);
    console.log(json ? JSON.stringify(result, null, 2) : `\n${report(result)}`);
    if (!result.recalled || !result.controlsAtChance) process.exitCode = 1;
  } finally {
    process.off('SIGINT', interrupt);
  }
}

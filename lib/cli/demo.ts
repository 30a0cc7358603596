import { Command, Option } from 'commander';
import { introduction, report } from './demo/report';
import { type DemoSettings, hideKey, readDocument } from './demo/run';
import { type FeatureOptions, featureOptions, showFeatures } from './features';
import { bytes } from './format';
import { interruptible } from './interrupt';
import { machineOf } from './machine';
import { directoryOf, type ModelChoice, modelOption, openModel, ruleOption } from './models';
import { length, number, whole } from './options';
import { HAYSTACKS } from './passkey/haystack';
import { Progress } from './progress';

const MILLION = 2 ** 20;
/** `--features` holds its text as one string, and a string has a limit. */
const MOST_TOKENS = 500_000_000;
const MOST_SEED = 2 ** 32 - 1;

interface DemoOptions extends ModelChoice, Partial<DemoSettings> {
  features?: boolean;
  device: string;
  json?: boolean;
}

export function demoCommand(): Command {
  const ofModels = [
    modelOption(),
    new Option('--depth <share>', 'where the key is, from 0 to 1 (default: anywhere)').argParser(
      number(0, 1),
    ),
    new Option('--haystack <text>', 'what surrounds it (default: filler)').choices(HAYSTACKS),
  ];
  const ofFeatures = featureOptions();
  const command = new Command('demo')
    .description('hide a pass key in a million tokens and ask a trained model for it')
    .addOption(ruleOption('; with --features: how a segment is absorbed (default: delta)'))
    .option('--tokens <n>', 'of the document, also as 32K or 1M (default: 1M)', length(1, MOST_TOKENS))
    .option('--seed <n>', 'draws what is hidden, and where (default: a new one)', whole(0, MOST_SEED))
    .option('--device <id>', 'auto, cpu, cuda or cuda:<n>', 'auto')
    .option('--json', 'print the result as JSON');
  for (const option of ofModels) command.addOption(option);
  command
    .optionsGroup('Without a model:')
    .option('--features', 'q, k and v written by hand instead, of a novel, character by character');
  for (const option of ofFeatures) command.addOption(option);
  return command.action((options: DemoOptions & FeatureOptions) => {
    for (const option of options.features ? ofModels : ofFeatures) {
      if (command.getOptionValueSource(option.attributeName()) !== 'cli') continue;
      command.error(`error: option '${option.flags}' is ${options.features ? 'not for' : 'for'} --features`);
    }
    const { features, ...rest } = options;
    return features ? showFeatures(rest) : demo(rest);
  });
}

async function demo({ json, device, ...options }: DemoOptions): Promise<void> {
  const { tokens = MILLION, seed = Math.floor(Math.random() * 1e6), depth, haystack = 'filler' } = options;
  const settings: DemoSettings = { tokens, seed, depth, haystack };
  const directory = directoryOf(options);
  using model = await openModel(directory, device);
  const hidden = hideKey(model, settings);
  if (!json) console.log(introduction(directory, model, settings, hidden));

  await interruptible(async (signal) => {
    const progress = new Progress('reading', tokens, 'tokens');
    const result = await readDocument(model, settings, hidden, {
      signal,
      onProgress: (done, held) => progress.update(done, `${bytes(held)} held`),
    }).finally(() => progress.stop());
    const all = { ...machineOf(model.device.info), model: directory, ...result };
    console.log(json ? JSON.stringify(all, null, 2) : `\n${report(result)}`);
    if (!result.right) process.exitCode = 1;
  });
}

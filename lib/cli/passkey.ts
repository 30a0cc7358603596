import { writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { Command, Option } from 'commander';
import { interruptible } from './interrupt';
import { machineOf } from './machine';
import { addModelOptions, directoryOf, hashModel, type ModelChoice, openModel } from './models';
import { choices, lengths, whole } from './options';
import { HAYSTACKS, type HaystackName } from './passkey/haystack';
import { Ledger } from './passkey/ledger';
import { DEPTHS, type Depth, LEAST_LENGTH } from './passkey/questions';
import { htmlReport, type PasskeyResult, textReport } from './passkey/report';
import { runTable, type TableSettings } from './passkey/run';
import { summarise } from './passkey/summary';
import { Task } from './passkey/task';
import { Progress } from './progress';

const LENGTHS = '32K,128K,256K,512K,1M';
const MOST_LENGTH = 2 ** 30;
const MOST_KEYS = 1000;
const MOST_SEED = 2 ** 32 - 1;

interface PasskeyOptions extends ModelChoice {
  lengths: number[];
  depths: Depth[];
  keys?: number;
  haystack: HaystackName;
  seed: number;
  device: string;
  json?: boolean;
  html?: string;
  resume?: string;
}

export function passkeyCommand(): Command {
  const readLengths = lengths(LEAST_LENGTH, MOST_LENGTH);
  const command = new Command('passkey').description(
    'hide pass keys in long documents and ask a trained model for them: the table of the paper, with controls',
  );
  return addModelOptions(command)
    .addOption(
      new Option('--lengths <list>', 'tokens of the documents (K: 1,024, M: 1,048,576)')
        .argParser(readLengths)
        .default(readLengths(LENGTHS), LENGTHS),
    )
    .addOption(
      new Option('--depths <list>', 'where the keys are')
        .argParser(choices(DEPTHS))
        .default([...DEPTHS], DEPTHS.join()),
    )
    .option('--keys <n>', 'keys for each length and depth (default: 40, above 256K 20)', whole(1, MOST_KEYS))
    .addOption(new Option('--haystack <text>', 'what surrounds them').choices(HAYSTACKS).default('filler'))
    .option('--seed <n>', 'draws the keys and their places', whole(0, MOST_SEED), 1)
    .option('--device <id>', 'auto, cpu, cuda or cuda:<n>', 'auto')
    .option('--resume <file>', 'keep what is finished in this file, and go on from there')
    .option('--html <file>', 'write a report')
    .option('--json', 'print everything as JSON')
    .action(passkey);
}

async function passkey(options: PasskeyOptions): Promise<void> {
  const { json, html, resume, lengths, depths, keys, haystack, seed } = options;
  const settings: TableSettings = { lengths, depths, keys, haystack, seed };
  const directory = directoryOf(options);
  using model = await openModel(directory, options.device);
  const task = new Task(model);
  const sha256 = await hashModel(directory);
  const machine = machineOf(model.device.info);
  const hashes = Object.entries(sha256).map(([file, hash]) => [`SHA-256 of ${file}`, hash]);
  const { version, device } = machine;
  const ledger = Ledger.open(resume, {
    ...Object.fromEntries(hashes),
    version,
    device: device.id,
    haystack,
    seed,
  });
  if (ledger.size > 0) console.error(`  ${ledger.size} cells are in ${resume} already`);

  await interruptible(async (signal) => {
    let progress: Progress | undefined;
    try {
      await runTable(model, settings, ledger, {
        signal,
        onStart: (tokens) => {
          if (tokens > 0) progress = new Progress('pass keys', tokens, 'tokens');
        },
        onProgress: (tokens) => progress?.update(tokens),
      });
    } finally {
      progress?.stop();
    }
  });

  using session = model.createSession();
  const { rule } = model.config;
  const result: PasskeyResult = {
    ...machine,
    model: { name: basename(directory), rule, sha256 },
    settings,
    stateBytes: session.byteLength,
    ...summarise(ledger, settings, task, rule),
  };
  if (html !== undefined) writeFileSync(html, htmlReport(result));
  console.log(json ? JSON.stringify(result, null, 2) : textReport(result));
  if (!result.controlsAtChance) process.exitCode = 1;
}

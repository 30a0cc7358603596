import { createHash } from 'node:crypto';
import { createReadStream, readdirSync } from 'node:fs';
import path from 'node:path';
import { type Command, Option } from 'commander';
import { type LoadModelOptions, loadModel, type Model, type Rule } from '../index';
import { packageRoot } from './package';

/** Which model: a directory, or the one of the package's own that uses the rule. */
export interface ModelChoice {
  model?: string;
  rule?: Rule;
}

export const modelOption = (): Option => new Option('--model <dir>', "a model's directory").conflicts('rule');

export const ruleOption = (otherwise = ''): Option =>
  new Option(
    '--rule <rule>',
    `which of the models that come with the package (default: linear)${otherwise}`,
  ).choices(['linear', 'delta']);

export const addModelOptions = (command: Command): Command =>
  command.addOption(modelOption()).addOption(ruleOption());

export const directoryOf = ({ model, rule = 'linear' }: ModelChoice): string =>
  path.resolve(model ?? path.join(packageRoot, 'models', `passkey-${rule}`));

export const openModel = (directory: string, device = 'auto'): Promise<Model> =>
  loadModel(directory, { device: device as NonNullable<LoadModelOptions['device']> });

/** SHA-256 of each file that makes the model, as `sha256sum` prints it. */
export async function hashModel(directory: string): Promise<Record<string, string>> {
  const files = readdirSync(directory).filter((name) =>
    /^(config\.json|tokenizer\.json|.*\.safetensors(\.index\.json)?)$/.test(name),
  );
  const hashes: Record<string, string> = {};
  for (const name of files.sort()) {
    const hash = createHash('sha256');
    for await (const chunk of createReadStream(path.join(directory, name))) hash.update(chunk);
    hashes[name] = hash.digest('hex');
  }
  return hashes;
}

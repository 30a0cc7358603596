#!/usr/bin/env node
import { Command } from 'commander';
import { benchCommand } from './bench';
import { demoCommand } from './demo';
import { devicesCommand } from './devices';
import { packageVersion } from './package';

const INTERRUPTED = 130;

const program = new Command('infini-stream')
  .description('Attention over unbounded streams in constant memory.')
  .version(packageVersion())
  .showHelpAfterError('(--help shows the options)');

for (const command of [devicesCommand(), demoCommand(), benchCommand()]) {
  program.addCommand(command.copyInheritedSettings(program));
}

program.parseAsync().catch((error: unknown) => {
  if (!(error instanceof Error)) throw error;
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  const text = code ? `${error.message} (${code})` : error.message;
  console.error(`infini-stream: ${text}`);
  process.exitCode = code === 'ABORT_ERR' ? INTERRUPTED : 1;
});

#!/usr/bin/env node
import { Command } from 'commander';
import { benchCommand } from './bench';
import { demoCommand } from './demo';
import { devicesCommand } from './devices';
import { gatesCommand } from './gates';
import { generateCommand } from './generate';
import { packageVersion } from './package';
import { passkeyCommand } from './passkey';

const INTERRUPTED = 130;

const program = new Command('infini-stream')
  .enablePositionalOptions() // what follows a command is its own
  .description('Attention over unbounded streams in constant memory, and models that run on it.')
  .version(packageVersion())
  .showHelpAfterError('(--help shows the options)');

const commands = [
  demoCommand(),
  passkeyCommand(),
  gatesCommand(),
  generateCommand(),
  devicesCommand(),
  benchCommand(),
];
for (const command of commands) program.addCommand(command.copyInheritedSettings(program));

// Whoever reads the output may have seen enough of it: `infini-stream generate ... | head`.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});

program.parseAsync().catch((error: unknown) => {
  if (!(error instanceof Error)) throw error;
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  const text = code ? `${error.message} (${code})` : error.message;
  console.error(`infini-stream: ${text}`);
  process.exitCode = code === 'ABORT_ERR' ? INTERRUPTED : 1;
});

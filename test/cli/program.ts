import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import path from 'node:path';

export const root = path.join(__dirname, '../..');
export const main = path.join(root, 'dist/cli/main.js');

/** The program as it is installed, to its end. */
export function run(...args: string[]): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', timeout: 55_000 });
}

/** What it prints with --json. */
export function json(...args: string[]) {
  const { status, stdout, stderr } = run(...args, '--json');
  return { status, stderr, result: JSON.parse(stdout) };
}

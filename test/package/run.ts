import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

export const root = join(__dirname, '../..');

/** The environment of a user: without what npm, jest and a sanitizer run put into ours. */
export function userEnvironment(): NodeJS.ProcessEnv {
  const foreign =
    /^(npm_(?!config_(cache|registry|cafile|userconfig|globalconfig)$)|JEST_|INFINI_|LD_PRELOAD|[AU]B?SAN_)/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !foreign.test(name)));
}

/** Runs a program and returns what it printed, or throws with all it said. */
export function run(
  program: string,
  args: string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): string {
  const result = spawnSync(program, args, {
    cwd: options.cwd ?? root,
    env: { ...userEnvironment(), ...options.env },
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    shell: process.platform === 'win32',
  });
  if (result.status === 0) return result.stdout;
  const said = `${result.error ?? ''}${result.stdout ?? ''}${result.stderr ?? ''}`;
  throw new Error(`${program} ${args.join(' ')}: status ${result.status}, signal ${result.signal}\n${said}`);
}

/** Runs the command of an installed development package. */
export function runTool(file: string, args: string[], cwd = root): string {
  return run(process.execPath, [join(root, 'node_modules', file), ...args], { cwd });
}

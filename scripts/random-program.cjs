// Runs a long random program of the tests in a process of its own: its seed is told, and repeats it.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { randomInt } = require('node:crypto');
const { spawnSync } = require('node:child_process');
const { parseArgs } = require('node:util');

const root = path.join(__dirname, '..');

/**
 * The command line's options: --minutes or --seconds, --seed, and those of `more`: names of whole numbers or of flags, with
 * their defaults. Anything else ends this process with status 2.
 */
function readOptions(args, more = {}) {
  const defaults = { seed: randomInt(2 ** 31), ...more };
  const isFlag = (name) => typeof defaults[name] === 'boolean';
  const names = ['minutes', 'seconds', ...Object.keys(defaults)];
  try {
    const options = Object.fromEntries(
      names.map((name) => [name, { type: isFlag(name) ? 'boolean' : 'string' }]),
    );
    const { values } = parseArgs({ args, options });
    const number = (name, most, whole) => {
      const value = Number(values[name]);
      const fits = values[name].trim() !== '' && value >= 0 && value <= most;
      if (fits && (Number.isInteger(value) || !whole)) return value;
      throw new Error(
        `Expected ${whole ? 'a whole number' : 'a number'} from 0 to ${most} for --${name} but received '${values[name]}'`,
      );
    };
    if (values.minutes !== undefined && values.seconds !== undefined)
      throw new Error('Expected --minutes or --seconds, not both');
    const read = { seconds: 60 };
    if (values.minutes !== undefined) read.seconds = 60 * number('minutes', 1e5, false);
    if (values.seconds !== undefined) read.seconds = number('seconds', 1e7, false);
    for (const name of Object.keys(defaults)) {
      if (values[name] === undefined) read[name] = defaults[name];
      else read[name] = isFlag(name) ? values[name] : number(name, 2 ** 31 - 1, true);
    }
    return read;
  } catch (error) {
    process.stderr.write(
      `${error.message}\nThe options are: ${names.map((name) => `--${name}`).join(' ')}\n`,
    );
    process.exit(2);
  }
}

/** Runs program SEED SECONDS LOG ...more; returns its exit status. */
function runProgram(program, { seed, seconds }, more = [], env = {}) {
  const log = path.join(os.tmpdir(), `infini-operations-${seed}.log`);
  process.stderr.write(`seed ${seed}, ${seconds} s; the last operations are in ${log}\n`);
  const register = path.join(root, 'test/fuzz/register.cjs');
  const { status, signal } = spawnSync(
    process.execPath,
    ['--expose-gc', '-r', register, path.join(root, program), ...[seed, seconds, log, ...more].map(String)],
    { stdio: 'inherit', env: { ...process.env, ...env } },
  );
  if (status === 0) fs.rmSync(log);
  else
    process.stderr.write(
      `failed with seed ${seed}: status ${status}, signal ${signal}; repeat with --seed ${seed}\n`,
    );
  return status ?? 1;
}

module.exports = { readOptions, runProgram };

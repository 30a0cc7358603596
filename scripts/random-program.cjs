// Runs a long random program of the tests in a process of its own: its seed is told, and repeats it.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { randomInt } = require('node:crypto');
const { spawnSync } = require('node:child_process');
const { parseArgs } = require('node:util');

const root = path.join(__dirname, '..');

/**
 * The command line's options: --minutes or --seconds, --seed, and those of `more`: names of counts or of flags, with
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
    const number = (name, what, isRight) => {
      const value = Number(values[name]);
      if (values[name].trim() !== '' && isRight(value)) return value;
      throw new Error(`Expected ${what} for --${name} but received '${values[name]}'`);
    };
    const time = (name) => number(name, 'a number from 0 on', (value) => value >= 0 && value < 1e8);
    const count = (name) =>
      name === 'seed'
        ? number(
            name,
            'a whole number below 2^31',
            (value) => Number.isInteger(value) && value >= 0 && value < 2 ** 31,
          )
        : number(name, 'a whole number from 1 on', (value) => Number.isSafeInteger(value) && value > 0);
    if (values.minutes !== undefined && values.seconds !== undefined)
      throw new Error('Expected --minutes or --seconds, not both');
    const read = { seconds: 60 };
    if (values.minutes !== undefined) read.seconds = 60 * time('minutes');
    if (values.seconds !== undefined) read.seconds = time('seconds');
    for (const [name, otherwise] of Object.entries(defaults)) {
      if (values[name] === undefined) read[name] = otherwise;
      else read[name] = isFlag(name) ? values[name] : count(name);
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

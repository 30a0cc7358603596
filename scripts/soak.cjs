// Random calls on many streams for a long time.
//   npm run soak [-- --minutes 30 | --seconds 60] [--seed N] [--streams 200]

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { randomInt } = require('node:crypto');
const { spawnSync } = require('node:child_process');
const { parseArgs } = require('node:util');

const root = path.join(__dirname, '..');

/** Runs program SEED SECONDS ...more LOG in a process of its own; returns its exit status. */
function runProgram(program, args, more, env) {
  const text = { type: 'string' };
  const { values } = parseArgs({
    args,
    options: { minutes: text, seconds: text, seed: text, streams: text },
  });
  const seconds = values.seconds ?? String(60 * Number(values.minutes ?? 1));
  const seed = values.seed ?? String(randomInt(2 ** 31));
  const log = path.join(os.tmpdir(), `infini-operations-${seed}.log`);
  process.stderr.write(`seed ${seed}, ${seconds} s; the last operations are in ${log}\n`);
  const register = path.join(root, 'test/fuzz/register.cjs');
  const extra = more.map((name) => values[name] ?? '200');
  const { status, signal } = spawnSync(
    process.execPath,
    ['--expose-gc', '-r', register, path.join(root, program), seed, seconds, ...extra, log],
    { stdio: 'inherit', env: { ...process.env, ...env } },
  );
  if (status === 0) fs.rmSync(log);
  else process.stderr.write(`failed with seed ${seed}: status ${status}, signal ${signal}\n`);
  return status ?? 1;
}

module.exports = { runProgram };

if (require.main === module)
  process.exit(runProgram('test/soak/soak.ts', process.argv.slice(2), ['streams'], {}));

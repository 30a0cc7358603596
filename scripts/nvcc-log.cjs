// CMake calls nvcc through this: `node nvcc-log.cjs NVCC ARGUMENTS...`. What ptxas says of the kernels (registers,
// shared memory, spills) goes to OBJECT.ptxas, for scripts/check-kernels.cjs; the rest is passed on.

const fs = require('node:fs');
const { spawnSync } = require('node:child_process');

const [nvcc, ...args] = process.argv.slice(2);
const { status, error, stdout, stderr } = spawnSync(nvcc, args, {
  encoding: 'utf8',
  maxBuffer: 1 << 28,
  stdio: ['inherit', 'pipe', 'pipe'],
});
if (error) throw error;

const isLog = (line) => /^ptxas info|^ +\d+ bytes stack frame/.test(line);
const lines = stderr.split('\n');
const object = args[args.indexOf('-o') + 1];
if (status === 0 && args.includes('-c')) fs.writeFileSync(`${object}.ptxas`, lines.filter(isLog).join('\n'));

process.stdout.write(stdout);
process.stderr.write(lines.filter((line) => !isLog(line)).join('\n'));
process.exitCode = status ?? 1; // null when a signal ended it

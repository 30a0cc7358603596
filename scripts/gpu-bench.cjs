// Times the kernels, whole calls from JavaScript and, where PyTorch is there, other implementations, on the GPU of this
// machine. Prints tables and writes bench/results/gpu-bench-<gpu>-<date>.json. Needs what `npm run build:gpu-tests` makes.
//   npm run gpu:bench [-- --only kernels,calls,peers] [-- --kinds ... --segments ...: see bench/gpu/kernel_bench.cc]

const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { describe, ratesOf } = require('../bench/gpu/floors.cjs');
const { callTable, kernelTable, peerTable, withFloors } = require('../bench/gpu/table.cjs');
const { built, gpu, has, root, writeResult } = require('./gpu/machine.cjs');
const { shapesAmong, takeOnly } = require('./gpu/arguments.cjs');

/** The objects that a program prints, one a line; its other words and a bad ending go to stderr. */
function objects(command, args) {
  const { stdout, status, signal, error } = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines = (stdout ?? '').split('\n').filter((line) => line.startsWith('{'));
  const failed = status !== 0;
  if (failed) console.error(`${command} ${args.join(' ')}: ended with ${error?.code ?? signal ?? status}`);
  return { lines: lines.map((line) => JSON.parse(line)), failed };
}

/** What can be had of { lines, failed } where python3 may be missing. */
function peers(args) {
  if (!has('python3'))
    return { lines: [{ peer: 'PyTorch', skipped: 'python3 is not installed here' }], failed: false };
  return objects('python3', [path.join(root, 'bench/peers/gpu_peers.py'), ...args]);
}

function main(args) {
  const { only, rest } = takeOnly(args, ['kernels', 'calls', 'peers']);
  const device = gpu();
  if (!device) throw new Error('there is no CUDA device: `npx infini-stream devices` says why');
  const result = { device: device.name, driver: device.driver, ...built(), date: new Date().toISOString() };
  let cases = [];
  let failed = false;

  if (only.includes('kernels')) {
    const bench = objects(path.join(root, 'build/gpu/kernel_bench'), rest);
    const [machine, ...measured] = bench.lines;
    if (!machine) throw new Error('kernel_bench printed nothing');
    const rates = ratesOf(machine.device, machine.copyGigabytes);
    cases = withFloors(rates, measured);
    Object.assign(result, { machine, rates, kernels: cases });
    failed ||= bench.failed;
    console.log(`${machine.device}: a copy moves ${machine.copyGigabytes} GB/s; ${describe(rates)}\n`);
    console.log(`${kernelTable(cases)}\n`);
  }
  if (only.includes('calls')) {
    const bench = objects(process.execPath, [path.join(root, 'bench/gpu/end-to-end.cjs'), 'cuda']);
    result.calls = bench.lines;
    failed ||= bench.failed;
    console.log(`${callTable(bench.lines, cases)}\n`);
  }
  if (only.includes('peers')) {
    const bench = peers(shapesAmong(rest));
    result.peers = bench.lines;
    failed ||= bench.failed;
    console.log(`${peerTable(bench.lines, cases)}\n`);
  }
  console.log(writeResult('gpu-bench', device.name, result));
  process.exitCode = failed ? 1 : 0;
}

try {
  main(process.argv.slice(2));
} catch (error) {
  console.error(`gpu:bench: ${error.message}`);
  process.exitCode = 2;
}

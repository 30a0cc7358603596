// Everything that only a GPU can tell, on a machine that has one, Node and a driver, but no compiler: the working tree
// comes with node_modules, dist and build, made elsewhere by `npm run build:gpu-tests`. Writes bench/results/gpu-verify-<gpu>-<date>.json, and the
// golden results of the PTX wrappers, which the host's tests compare the emulation with.
//   npm run gpu:verify [-- --only golden,kernels,repeats,suite,sanitizer]

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { jest, suite } = require('./device-suite.cjs');
const { built, gpu, has, root, writeResult } = require('./gpu/machine.cjs');
const { kernelTests, suiteTests } = require('./gpu/outcomes.cjs');

const program = (name) => path.join(root, 'build/gpu', name);

function run(command, args, { seconds, env } = {}) {
  const { status, signal, stdout, stderr, error } = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    timeout: seconds * 1000,
    env: { ...process.env, ...env },
  });
  return {
    passed: status === 0,
    output: `${stdout ?? ''}${stderr ?? ''}`,
    ending: error?.code ?? signal ?? status,
  };
}

/** One command is one test. */
function single(name, result) {
  const failure = { name, reason: `ended with ${result.ending}: ${result.output.trim().slice(-1000)}` };
  return { passed: result.passed ? 1 : 0, failures: result.passed ? [] : [failure] };
}

function golden({ commit }) {
  const file = path.join(root, 'test/cuda-on-host/golden.json');
  const env = { INFINI_COMMIT: commit };
  const written = single('golden write', run(program('golden'), ['write', file], { seconds: 60, env }));
  const checked = single('golden check', run(program('golden'), ['check', file], { seconds: 60 }));
  return {
    passed: written.passed + checked.passed,
    failures: [...written.failures, ...checked.failures],
  };
}

const kernels = () => kernelTests(run(program('kernel_tests'), [], { seconds: 120 }));

function deviceSuite() {
  if (!fs.existsSync(jest)) return { skipped: 'jest is not installed here' };
  const report = path.join(os.tmpdir(), `gpu-verify-${process.pid}.json`);
  const args = [jest, '--json', `--outputFile=${report}`, ...suite];
  const result = run(process.execPath, args, { seconds: 240, env: { INFINI_TEST_DEVICE: 'cuda' } });
  if (!fs.existsSync(report)) return single('jest', result);
  const outcome = suiteTests(JSON.parse(fs.readFileSync(report, 'utf8')));
  fs.rmSync(report);
  return outcome;
}

function repeats() {
  const args = [path.join(root, 'scripts/gpu/repeats.cjs'), 'cuda', '30'];
  return single('30 repeats are bit-identical', run(process.execPath, args, { seconds: 60 }));
}

function sanitizer() {
  if (!has('compute-sanitizer')) return { skipped: 'compute-sanitizer is not installed here' };
  const outcomes = ['memcheck', 'racecheck'].map((tool) => {
    const args = ['--tool', tool, '--error-exitcode', '99', program('kernel_tests'), 'small'];
    return single(`compute-sanitizer ${tool}`, run('compute-sanitizer', args, { seconds: 120 }));
  });
  return {
    passed: outcomes.reduce((sum, { passed }) => sum + passed, 0),
    failures: outcomes.flatMap(({ failures }) => failures),
  };
}

function main(args) {
  const steps = { golden, kernels, repeats, suite: deviceSuite, sanitizer };
  const only = args[0] === '--only' ? args[1].split(',') : Object.keys(steps);
  const unknown = only.filter((name) => !(name in steps));
  if (unknown.length > 0)
    throw new Error(`there is no step ${unknown.join()}: they are ${Object.keys(steps)}`);
  const device = gpu();
  if (!device) throw new Error('there is no CUDA device: `npx infini-stream devices` says why');

  const { commit, nvcc } = built();
  const result = { device: device.name, computeCapability: device.computeCapability, driver: device.driver };
  Object.assign(result, { commit, nvcc, date: new Date().toISOString(), failed: 0, steps: {} });
  for (const name of only) {
    const start = Date.now();
    const outcome = steps[name]({ commit });
    const seconds = Math.round((Date.now() - start) / 100) / 10;
    result.steps[name] = { ...outcome, seconds };
    result.failed += outcome.failures?.length ?? 0;
    console.log(
      `${name.padEnd(10)} ${outcome.skipped ?? `${outcome.passed} passed, ${outcome.failures.length} failed`} (${seconds} s)`,
    );
    for (const { name, reason } of outcome.failures ?? []) console.log(`  FAILED ${name}: ${reason}`);
  }
  console.log(`${result.failed} failed: ${writeResult('gpu-verify', device.name, result)}`);
  process.exitCode = result.failed === 0 ? 0 : 1;
}

try {
  main(process.argv.slice(2));
} catch (error) {
  console.error(`gpu:verify: ${error.message}`);
  process.exitCode = 2;
}

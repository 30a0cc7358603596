// What gpu-verify does, in order: what is quick and tells most comes first. A step is given
// { commit, jest, selection, run } and resolves to { passed, failures }, or to { skipped } with the reason. jest and
// selection are the program and its arguments that choose tests; run(command, args, { seconds, env }) is runWithin
// (within.cjs), where `seconds` keep one step that hangs from taking the time of the others.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { has, root } = require('./machine.cjs');
const { kernelTests, single, suiteTests, together } = require('./outcomes.cjs');

const program = (name) => path.join(root, 'build/gpu', name);
const repetitions = 30;

async function golden({ commit, run }) {
  const file = path.join(root, 'test/cuda-on-host/golden.json');
  const env = { INFINI_COMMIT: commit };
  const written = await run(program('golden'), ['write', file], { seconds: 30, env });
  const checked = await run(program('golden'), ['check', file], { seconds: 30 });
  return together([single('golden write', written), single('golden check', checked)]);
}

async function kernels({ run }) {
  return kernelTests(await run(program('kernel_tests'), [], { seconds: 120 }));
}

async function repeats({ run }) {
  const args = [path.join(root, 'scripts/gpu/repeats.cjs'), 'cuda', String(repetitions)];
  return single(
    `${repetitions} repeats are bit-identical`,
    await run(process.execPath, args, { seconds: 60 }),
  );
}

async function suite({ run, jest, selection }) {
  if (!fs.existsSync(jest))
    return { passed: 0, failures: [{ name: 'jest', reason: 'it is not installed here' }] };
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'gpu-verify-'));
  try {
    const report = path.join(folder, 'jest.json');
    const args = [jest, '--json', `--outputFile=${report}`, ...selection];
    const result = await run(process.execPath, args, { seconds: 270, env: { INFINI_TEST_DEVICE: 'cuda' } });
    if (!fs.existsSync(report)) return single('jest', { ...result, passed: false });
    return suiteTests(JSON.parse(fs.readFileSync(report, 'utf8')), result);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

async function sanitizer({ run }) {
  if (!has('compute-sanitizer')) return { skipped: 'compute-sanitizer is not installed here' };
  const outcomes = [];
  for (const tool of ['memcheck', 'racecheck']) {
    const args = ['--tool', tool, '--error-exitcode', '99', program('kernel_tests'), 'small'];
    const result = await run('compute-sanitizer', args, { seconds: 120 });
    outcomes.push(single(`compute-sanitizer ${tool}`, result));
  }
  return together(outcomes);
}

module.exports = { steps: { golden, kernels, repeats, suite, sanitizer } };

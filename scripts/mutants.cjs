// Tests the tests: puts one fault at a time into a copy of the sources (scripts/mutants/list.cjs), builds it, and
// expects a test to fail. The copy and its build stay in build-mutants/, so that each fault compiles a file or two.
//   npm run test:mutants [-- cpu|cuda [words of the faults' names]]      cuda: see scripts/mutants-cuda.cjs

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { testCudaFaults } = require('./mutants-cuda.cjs');
const { mirror, patched } = require('./mutants/copy.cjs');
const faults = require('./mutants/list.cjs');

const root = path.join(__dirname, '..');
const copy = path.join(root, 'build-mutants');
const parts = [
  'native',
  'lib',
  'test',
  'scripts',
  'cuda',
  'models',
  'CMakeLists.txt',
  'jest.config.cjs',
  'package.json',
];

// These run the suite again at other SIMD levels or take long, and find nothing that the others do not.
const left = ['parity/simd', 'parity/long-stream'];
const patterns = ['test/parity', 'test/contract', 'test/model'];

function copySources() {
  fs.mkdirSync(copy, { recursive: true });
  for (const part of parts) mirror(path.join(root, part), path.join(copy, part));
  const modules = path.join(copy, 'node_modules');
  fs.rmSync(modules, { force: true });
  fs.symlinkSync(path.join(root, 'node_modules'), modules, 'junction');
}

function build() {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['scripts/build.cjs', '-DINFINI_CUDA=OFF'], {
    cwd: copy,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (status !== 0) throw new Error(`it does not compile:\n${stdout}${stderr}`);
}

/** Runs the tests until one fails: undefined when all pass, else the failed test's name. */
function firstFailure() {
  const report = path.join(copy, 'report');
  fs.rmSync(report, { force: true });
  const { status, signal, stderr } = spawnSync(
    process.execPath,
    [
      path.join(root, 'node_modules/jest/bin/jest.js'),
      ...['--bail', `--maxWorkers=${os.availableParallelism()}`],
      ...['--reporters', path.join(__dirname, 'mutants/reporter.cjs')],
      ...['--testPathIgnorePatterns', ...left, '--testPathPatterns', ...patterns],
    ],
    {
      cwd: copy,
      encoding: 'utf8',
      env: { ...process.env, MUTANTS_REPORT: report },
      timeout: 600_000,
      maxBuffer: 1 << 28,
    },
  );
  if (status === 0) return undefined;
  if (fs.existsSync(report)) {
    return fs.readFileSync(report, 'utf8').split('\n')[0].replace(path.join(copy, 'test/'), '');
  }
  // A crash or a hang is no test that says what is wrong.
  throw new Error(
    `no test failed, but jest ended with status ${status}, signal ${signal}:\n${stderr.slice(-4000)}`,
  );
}

/** Builds and tests one fault, and takes it out again. */
function tryOut(fault) {
  const file = path.join(copy, fault.file);
  const text = fs.readFileSync(file, 'utf8');
  fs.writeFileSync(file, patched(text, fault));
  try {
    build();
    return firstFailure();
  } finally {
    fs.writeFileSync(file, text);
  }
}

/** @returns whether all faults were found */
function testFaults(words) {
  const chosen = faults.filter(({ name }) => words.every((word) => name.includes(word)));
  copySources();
  for (const fault of chosen) patched(fs.readFileSync(path.join(copy, fault.file), 'utf8'), fault);
  process.stdout.write('The sources as they are... ');
  build();
  const broken = firstFailure();
  if (broken) throw new Error(`the tests fail without any fault: ${broken}`);
  console.log('pass');

  let found = 0;
  for (const fault of chosen) {
    const start = Date.now();
    let outcome = 'BROKEN';
    let detail = '';
    try {
      detail = tryOut(fault);
      outcome = detail ? 'killed' : 'SURVIVED';
    } catch (error) {
      detail = error.message;
    }
    const seconds = `${((Date.now() - start) / 1000).toFixed(0)} s`;
    console.log(`${outcome.padEnd(8)}  ${fault.name} (${seconds})`);
    if (detail) console.log(`          ${detail}`);
    if (outcome === 'killed') found++;
  }
  console.log(`${found} of ${chosen.length} faults were found by the tests.`);
  return found === chosen.length;
}

async function main([part, ...words]) {
  const good = part === 'cuda' || testFaults(words);
  const goodToo = part === 'cpu' || (await testCudaFaults(words));
  process.exitCode = good && goodToo ? 0 : 1;
}

main(process.argv.slice(2));

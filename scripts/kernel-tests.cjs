// Builds the CUDA kernels with the host's compiler and runs their tests under the emulation (test/cuda-on-host).
//   npm run test:kernels [-- plain|race|asan [--list] [part of a test's name]...]

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { withLock } = require('./lock.cjs');

const repository = path.join(__dirname, '..');
const variants = ['plain', 'race', 'asan'];

function cmake(args) {
  const { status, stdout, stderr, error } = spawnSync('cmake', args, {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (status !== 0)
    throw new Error(`cmake ${args.join(' ')}: status ${status}\n${error ?? ''}${stdout}${stderr}`);
}

function isConfigured(tree, source) {
  const cache = path.join(tree, 'CMakeCache.txt');
  if (!fs.existsSync(cache)) return false;
  const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(fs.readFileSync(cache, 'utf8'))?.[1];
  return home === source && fs.readdirSync(tree).some((file) => /^(build\.ninja|Makefile)$/.test(file));
}

function hasNinja() {
  return spawnSync('ninja', ['--version'], { stdio: 'ignore' }).status === 0;
}

/** Builds what has changed of the repository at `root`; returns the folder of kernel_tests and golden. */
function buildKernelTests(variant, root = repository) {
  const source = path.join(root, 'test/cuda-on-host');
  const tree = path.join(root, 'build-kernels', variant);
  fs.mkdirSync(tree, { recursive: true });
  return withLock(path.join(tree, '.lock'), () => {
    if (!isConfigured(tree, source)) {
      for (const file of ['CMakeCache.txt', 'CMakeFiles']) {
        fs.rmSync(path.join(tree, file), { recursive: true, force: true });
      }
      const generator = hasNinja() ? ['-G', 'Ninja'] : [];
      cmake(['-S', source, '-B', tree, ...generator, `-DVARIANT=${variant}`]);
    }
    cmake(['--build', tree, '--parallel', String(os.availableParallelism())]);
    return tree;
  });
}

const environment = { ...process.env, ASAN_OPTIONS: 'detect_leaks=0' }; // a failed launch abandons its fibers

/** The names of the tests; of those that contain one of `parts`, if there are any. */
function listKernelTests(folder, parts = []) {
  const program = path.join(folder, 'kernel_tests');
  const { stdout } = spawnSync(program, ['--list', ...parts], { encoding: 'utf8', env: environment });
  return stdout.split('\n').filter(Boolean);
}

module.exports = { buildKernelTests, environment, listKernelTests, variants };

if (require.main === module) {
  const args = process.argv.slice(2);
  const variant = variants.includes(args[0]) ? args.shift() : 'plain';
  const program = path.join(buildKernelTests(variant), 'kernel_tests');
  process.exitCode = spawnSync(program, args, { stdio: 'inherit', env: environment }).status ?? 1;
}

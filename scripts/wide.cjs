// Runs the parity tests on CPU kernels with vectors as wide as AVX-512's, made of AVX2's: the code for processors that this
// one is not.
//   npm run test:wide [-- arguments of jest]

const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { build, root } = require('./build.cjs');
const { jest } = require('./device-suite.cjs');

const folder = path.join(root, 'build-wide');
build({
  tree: path.join(folder, 'cmake'),
  to: path.join(folder, 'build/Release'),
  options: ['-DINFINI_CUDA=OFF', '-DINFINI_CPU_WIDE=ON'],
});
const suite = ['--testPathPatterns', 'test/parity', 'test/model/(parity|pytorch)'];
const { status } = spawnSync(process.execPath, [jest, ...suite, ...process.argv.slice(2)], {
  cwd: root,
  stdio: 'inherit',
  env: {
    ...process.env,
    INFINI_CPU: 'wide',
    INFINI_STREAM_PREBUILD: folder, // where node-gyp-build looks
  },
});
process.exitCode = status ?? 1;

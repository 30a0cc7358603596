// Runs the parity tests on the code for processors that this one is not: CPU kernels with vectors as wide as AVX-512's, made
// of AVX2's, and those of AMX, on a model of its tiles in software.
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
const failed = ['wide', 'tiles'].filter((level) => {
  const { status } = spawnSync(process.execPath, [jest, ...suite, ...process.argv.slice(2)], {
    cwd: root,
    stdio: 'inherit',
    env: {
      ...process.env,
      INFINI_CPU: level,
      INFINI_STREAM_PREBUILD: folder, // where node-gyp-build looks
    },
  });
  return status !== 0;
});
if (failed.length > 0) {
  console.error(`Failed: ${failed.join(', ')}`);
  process.exitCode = 1;
}

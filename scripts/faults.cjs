// Random calls on an addon whose allocations fail at random.
//   npm run test:faults [-- --seconds 60] [--seed N]

const fs = require('node:fs');
const path = require('node:path');
const { build, root } = require('./build.cjs');
const { runProgram } = require('./soak.cjs');

const folder = path.join(root, 'build-faults');
build({
  tree: path.join(folder, 'cmake'),
  to: path.join(folder, 'build/Release'),
  options: ['-DINFINI_FAULTS=ON', '-DINFINI_CUDA=OFF'],
});

const control = path.join(folder, 'control');
fs.writeFileSync(control, new Uint8Array(16));
process.exit(
  runProgram('test/faults/faults.ts', process.argv.slice(2), [], {
    INFINI_STREAM_PREBUILD: folder, // where node-gyp-build looks
    INFINI_FAULTS: control,
  }),
);

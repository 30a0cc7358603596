// Random calls on an addon whose allocations fail at random.
//   npm run test:faults [-- --seconds 60 | --minutes 30] [--seed N] [--emulated]
// --emulated: on the CUDA backend, its kernels executed on the host; the device's allocations fail, too.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { build, root } = require('./build.cjs');
const { emulatedEnvironment } = require('./device-suite.cjs');
const { readOptions, runProgram } = require('./random-program.cjs');

const { emulated, ...options } = readOptions(process.argv.slice(2), { emulated: false });
const folder = path.join(root, 'build-faults');
build({
  tree: path.join(folder, emulated ? 'emulated' : 'cmake'),
  to: path.join(folder, emulated ? 'build/Emulated' : 'build/Release'),
  options: ['-DINFINI_FAULTS=ON', `-DINFINI_CUDA=${emulated ? 'EMULATED' : 'OFF'}`],
});

const control = path.join(os.tmpdir(), `infini-faults-${options.seed}`);
fs.writeFileSync(control, new Uint8Array(32));
process.exitCode = runProgram('test/faults/faults.ts', options, [], {
  ...(emulated && emulatedEnvironment),
  INFINI_STREAM_PREBUILD: folder, // where node-gyp-build looks
  INFINI_FAULTS: control,
});
fs.rmSync(control);

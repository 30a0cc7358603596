// Runs the tests on an addon built with AddressSanitizer and UndefinedBehaviorSanitizer.
//   npm run test:asan [-- --emulated] [arguments of jest]      --emulated: of the CUDA backend, its kernels on the host

const path = require('node:path');
const { execFileSync, spawnSync } = require('node:child_process');
const { build, root } = require('./build.cjs');
const { emulatedEnvironment, jest, suite } = require('./device-suite.cjs');

const emulated = process.argv[2] === '--emulated';
const args = process.argv.slice(emulated ? 3 : 2);
const folder = path.join(root, 'build-asan');
build({
  tree: path.join(folder, emulated ? 'emulated' : 'cmake'),
  to: path.join(folder, emulated ? 'build/Emulated' : 'build/Release'),
  config: 'Debug',
  options: ['-DINFINI_SANITIZE=address', `-DINFINI_CUDA=${emulated ? 'EMULATED' : 'OFF'}`],
});

// Node itself is not instrumented, so the run-time libraries must be there before it starts. libstdc++ goes with
// them for builds of Node that carry their own: ASan looks up the function that throws exceptions at start.
const library = (name) => execFileSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' }).trim();
const { status } = spawnSync(process.execPath, [jest, '--runInBand', ...args, ...(emulated ? suite : [])], {
  cwd: root,
  stdio: 'inherit',
  env: {
    ...process.env,
    ...(emulated ? emulatedEnvironment : {}),
    LD_PRELOAD: ['libasan.so', 'libubsan.so', 'libstdc++.so'].map(library).join(' '),
    ASAN_OPTIONS: 'detect_leaks=0', // V8 keeps what it likes
    UBSAN_OPTIONS: 'halt_on_error=1:print_stacktrace=1',
    INFINI_STREAM_PREBUILD: folder, // where node-gyp-build looks
    INFINI_STREAM_SANITIZED: '1', // for tests that measure memory
  },
});
process.exit(status ?? 1);

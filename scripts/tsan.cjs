// Runs the tests on an addon built with ThreadSanitizer.
//   npm run test:tsan [-- arguments of jest]
//
// Left out: what has no thread of the addon's (what says nothing of a device, and the CUDA backend, which is not built here),
// and test/core, which builds its own programs with ThreadSanitizer.
//
// Node itself is not instrumented. ThreadSanitizer sees its threads and locks but not its atomics, and so reports races
// inside it that are none. Every report of an access by this package's own code is a failure; the others are counted.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { execFileSync, spawnSync } = require('node:child_process');
const { build, root } = require('./build.cjs');
const { jest, suite } = require('./device-suite.cjs');

const folder = path.join(root, 'build-tsan');
build({
  tree: path.join(folder, 'cmake'),
  to: path.join(folder, 'build/Release'),
  config: 'Debug',
  options: ['-DINFINI_SANITIZE=thread', '-DINFINI_CUDA=OFF'],
});

/**
 * Whether the addon's own code made one of the two accesses. It is deeper in the stack of others: V8 collects garbage, and
 * frees what is its own, while the addon calls it.
 */
function isOurs(text) {
  const accesses = text
    .split(/\n\s*\n/)
    .filter((part) => /^\s*(Previous |Atomic |Read |Write )|WARNING/.test(part));
  return accesses.some((part) => {
    const frames = part.split('\n').filter((line) => /^\s+#\d+ /.test(line));
    return frames
      .find((line) => !/\((libtsan|libstdc\+\+|libc)\.so/.test(line))
      ?.includes('infini_stream.node');
  });
}

const reports = fs.mkdtempSync(path.join(os.tmpdir(), 'infini-tsan-'));
const library = execFileSync('g++', ['-print-file-name=libtsan.so'], { encoding: 'utf8' }).trim();
// -R: the addresses that a kernel with much randomness gives are not all among those ThreadSanitizer can shadow.
const given = process.argv.slice(2);
const left = ['core', 'cuda'].map((folder) => `<rootDir>/test/${folder}/`);
const command = ['-R', process.execPath, jest, '--runInBand', ...given, ...suite, ...left];
const { status } = spawnSync('setarch', command, {
  cwd: root,
  stdio: 'inherit',
  env: {
    ...process.env,
    LD_PRELOAD: library,
    TSAN_OPTIONS: `exitcode=0:log_path=${path.join(reports, 'report')}:history_size=4`,
    INFINI_STREAM_PREBUILD: folder, // where node-gyp-build looks
    INFINI_STREAM_SANITIZED: 'thread', // for tests that measure memory, and for their sizes
  },
});

const all = fs
  .readdirSync(reports) // one file for each process
  .flatMap((name) => fs.readFileSync(path.join(reports, name), 'utf8').split(/^={18}$/m))
  .filter((text) => text.includes('WARNING: ThreadSanitizer'));
const ours = all.filter(isOurs);
fs.rmSync(reports, { recursive: true });
for (const text of ours) process.stderr.write(`${text}\n`);
process.stderr.write(
  `ThreadSanitizer: ${ours.length} reports of the addon, ${all.length - ours.length} inside Node\n`,
);
process.exit(ours.length > 0 ? 1 : (status ?? 1));

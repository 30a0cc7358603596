// Builds the addon with cmake-js and puts it where node-gyp-build looks for it.
//   node scripts/build.cjs [--to FOLDER] [-DOPTION=VALUE ...]      for example -DINFINI_CUDA=OFF

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawnSync } = require('node:child_process');

const root = path.join(__dirname, '..');
const name = 'infini_stream.node';
const target = path.join(root, 'build/Release', name);
// Not in build/: node-gyp empties that folder, and everything would be compiled again.
const defaultTree = path.join(root, 'build-cmake');

/** A build tree that CMake finished configuring, for this very folder: a moved one can not be used again. */
function isConfigured(tree) {
  try {
    const cache = fs.readFileSync(path.join(tree, 'CMakeCache.txt'), 'utf8');
    const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(cache)?.[1];
    return (
      path.resolve(home) === path.resolve(root) &&
      fs.readdirSync(tree).some((file) => /^(build\.ninja|Makefile|.*\.sln)$/.test(file))
    );
  } catch {
    return false;
  }
}

function isBuilt() {
  return isConfigured(defaultTree) && fs.existsSync(target);
}

function cmakeJs(command, tree, config, args) {
  const env = { ...process.env };
  for (const key of ['MAKEFLAGS', 'MFLAGS', 'MAKELEVEL']) delete env[key]; // from a make that called us
  const script = path.join(root, 'node_modules/cmake-js/bin/cmake-js');
  const { status } = spawnSync(
    process.execPath,
    [script, command, '-d', root, '-O', tree, '-B', config, ...args],
    {
      cwd: root,
      env,
      stdio: ['ignore', 2, 2], // `npm pack` and others print results to stdout
    },
  );
  // The status is null when a signal ended it.
  if (status !== 0) process.exit(status ?? 1);
}

/** Copies so that a process that is loading the old file keeps a whole one, and only when something changed. */
function install(from, to) {
  const bytes = fs.readFileSync(from);
  if (fs.existsSync(to) && fs.readFileSync(to).equals(bytes)) return;
  fs.mkdirSync(path.dirname(to), { recursive: true });
  const temporary = `${to}.${process.pid}.tmp`;
  fs.writeFileSync(temporary, bytes, { mode: 0o755 });
  fs.renameSync(temporary, to);
}

function build({ tree = defaultTree, to = path.dirname(target), config = 'Release', options = [] } = {}) {
  if (!isConfigured(tree)) fs.rmSync(tree, { recursive: true, force: true });
  if (options.length > 0) {
    const definitions = options.map((option) => option.replace(/^-D/, '--CD'));
    cmakeJs('configure', tree, config, definitions);
  }
  cmakeJs('build', tree, config, ['--parallel', String(os.availableParallelism())]);
  install(path.join(tree, config, name), path.join(to, name));
}

module.exports = { build, isBuilt, root, target };

if (require.main === module) {
  const args = process.argv.slice(2);
  const at = args.indexOf('--to');
  const to = at < 0 ? undefined : path.resolve(args.splice(at, 2)[1]);
  build({ to, options: args });
}

// Builds the addon with cmake-js and puts it where node-gyp-build looks for it.
//   node scripts/build.cjs [--to FOLDER] [-DOPTION=VALUE ...]      for example -DINFINI_CUDA=OFF
// CMakeLists.txt names the options. They stay in force until they are changed.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawnSync } = require('node:child_process');

const root = path.join(__dirname, '..');
const name = 'infini_stream.node';
const target = path.join(root, 'build/Release', name);
// Not in build/: node-gyp empties that folder, and everything would be compiled again.
const defaultTree = path.join(root, 'build-cmake');

/** What CMake keeps under this name in a build tree, if the tree was begun. */
function cached(tree, variable) {
  try {
    const cache = fs.readFileSync(path.join(tree, 'CMakeCache.txt'), 'utf8');
    return new RegExp(`^${variable}:\\w+=(.*)$`, 'm').exec(cache)?.[1];
  } catch {
    return undefined;
  }
}

/** A build tree that CMake finished configuring, for this very folder: a moved one can not be used again. */
function isConfigured(tree) {
  const home = cached(tree, 'CMAKE_HOME_DIRECTORY');
  return (
    home !== undefined &&
    path.resolve(home) === path.resolve(root) &&
    fs.readdirSync(tree).some((file) => /^(build\.ninja|Makefile|.*\.sln)$/.test(file))
  );
}

function isBuilt() {
  return isConfigured(defaultTree) && fs.existsSync(target);
}

/** Ends this process when it fails; when quiet, throws what was printed. */
function cmakeJs(command, tree, config, args, quiet) {
  const env = { ...process.env };
  for (const key of ['MAKEFLAGS', 'MFLAGS', 'MAKELEVEL']) delete env[key]; // from a make that called us
  const script = path.join(root, 'node_modules/cmake-js/bin/cmake-js');
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [script, command, '-d', root, '-O', tree, '-B', config, ...args],
    {
      cwd: root,
      env,
      encoding: 'utf8',
      maxBuffer: 1 << 28,
      stdio: quiet ? 'pipe' : ['ignore', 2, 2], // `npm pack` and others print results to stdout
    },
  );
  if (status === 0) return;
  if (quiet) throw new Error(`${stdout}${stderr}`);
  process.exit(status ?? 1); // null when a signal ended it
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

/** Makes these targets, everything if none is named, in a tree that has these options. */
function make({ tree, config = 'Release', options = [], targets = ['all'], quiet = false }) {
  if (!isConfigured(tree)) fs.rmSync(tree, { recursive: true, force: true });
  const changed = options.filter((option) => {
    const [, variable, value] = /^-D(\w+)=(.*)$/.exec(option) ?? [];
    return variable === undefined || cached(tree, variable) !== value;
  });
  if (changed.length > 0) {
    const definitions = options.map((option) => option.replace(/^-D/, '--CD'));
    cmakeJs('configure', tree, config, definitions, quiet);
  }
  const parallel = ['--parallel', String(os.availableParallelism())];
  for (const each of targets) cmakeJs('build', tree, config, ['--target', each, ...parallel], quiet);
}

/** Builds the addon and puts it into `to`. */
function build({ tree = defaultTree, to = path.dirname(target), config = 'Release', options } = {}) {
  make({ tree, config, options });
  install(path.join(tree, config, name), path.join(to, name));
}

function hasCuda(tree) {
  return (
    cached(tree, 'INFINI_CUDA') !== 'OFF' && !/NOTFOUND$|^$/.test(cached(tree, 'CMAKE_CUDA_COMPILER') ?? '')
  );
}

/** The tree with code for every GPU: the developer's own if it is so, or if there is no nvcc to make a better one. */
function releaseTree() {
  const complete =
    cached(defaultTree, 'INFINI_CUDA_ARCHITECTURES') === 'all' ||
    cached(defaultTree, 'CMAKE_CUDA_COMPILER') === 'NOTFOUND';
  return complete && isConfigured(defaultTree) ? defaultTree : path.join(root, 'build-release');
}
const releaseOptions = ['-DINFINI_CUDA_ARCHITECTURES=all'];

module.exports = { build, hasCuda, install, isBuilt, make, releaseOptions, releaseTree, root, target };

if (require.main === module) {
  const args = process.argv.slice(2);
  const at = args.indexOf('--to');
  const to = at < 0 ? undefined : path.resolve(args.splice(at, 2)[1]);
  build({ to, options: args });
}

// What every npm command runs first: it installs what is missing and builds what is stale, so that a fresh clone
// needs no other step. Nothing but Node is there yet, hence Node's built-in modules only. Progress goes to stderr,
// which leaves stdout to the command itself.

const fs = require('node:fs');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { missingTools } = require('./tools.cjs');
const { withLock } = require('./lock.cjs');

const root = path.join(__dirname, '..');

function fail(message) {
  console.error(message);
  process.exit(1);
}

/** Runs a step, quiet unless it fails. */
function step(title, command, args) {
  const start = Date.now();
  process.stderr.write(`${title}... `);
  const result = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    shell: command === 'npm' && process.platform === 'win32',
  });
  if (result.status !== 0) {
    fail(`failed\n${result.error?.message ?? ''}${result.stdout ?? ''}${result.stderr ?? ''}`);
  }
  process.stderr.write(`done in ${((Date.now() - start) / 1000).toFixed(1)} s\n`);
}

/** npm keeps a copy of what it installed in node_modules: compare it with the lockfile. */
function dependenciesAreInstalled() {
  const read = (file) => JSON.parse(fs.readFileSync(path.join(root, file), 'utf8')).packages;
  let installed;
  try {
    installed = read('node_modules/.package-lock.json');
  } catch {
    return false;
  }
  return Object.entries(read('package-lock.json')).every(([name, { version, integrity, optional }]) => {
    if (name === '') return true;
    const found = installed[name];
    return found ? found.version === version && found.integrity === integrity : optional;
  });
}

function install() {
  if (dependenciesAreInstalled()) return;
  // Development packages are wanted whatever NODE_ENV says; none of them needs its install script.
  const args = ['ci', '--include=dev', '--ignore-scripts', '--no-audit', '--no-fund'];
  const npm = process.env.npm_execpath ?? ''; // pnpm and yarn set it too, to themselves
  if (path.basename(npm) === 'npm-cli.js') step('Installing packages', process.execPath, [npm, ...args]);
  else step('Installing packages', 'npm', args);
}

function newest(file) {
  const stat = fs.statSync(file);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(stat.mtimeMs, ...fs.readdirSync(file).map((name) => newest(path.join(file, name))));
}

function compileTypeScript() {
  const dist = path.join(root, 'dist');
  const result = path.join(dist, 'index.js');
  const sources = ['lib', 'tsconfig.json', 'tsconfig.build.json', 'package-lock.json'];
  const changed = Math.max(...sources.map((name) => newest(path.join(root, name))));
  if (fs.existsSync(result) && fs.statSync(result).mtimeMs > changed) return;

  // Into a fresh folder: files of deleted sources go away, and a failed compilation leaves the old dist.
  const fresh = `${dist}-new`;
  const old = `${dist}-old`;
  for (const folder of [fresh, old]) fs.rmSync(folder, { recursive: true, force: true });
  const tsc = path.join(root, 'node_modules/typescript/bin/tsc');
  step('Compiling TypeScript', process.execPath, [tsc, '-p', 'tsconfig.build.json', '--outDir', fresh]);
  if (fs.existsSync(dist)) fs.renameSync(dist, old);
  fs.renameSync(fresh, dist);
  fs.rmSync(old, { recursive: true, force: true });
}

function buildAddon(options) {
  const { isBuilt, target } = require('./build.cjs');
  const args = [path.join(__dirname, 'build.cjs'), ...options];
  if (options.length === 0 && isBuilt()) {
    const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: 'ignore' });
    if (status === 0) return;
  }
  const title = fs.existsSync(target)
    ? 'Building the C++ addon'
    : 'Building the C++ addon (a minute or two, once)';
  step(title, process.execPath, args);
}

if (Number(process.versions.node.split('.')[0]) < 20) {
  fail(`infini-stream needs Node 20 or newer: this is Node ${process.versions.node}.`);
}
const missing = missingTools();
if (missing) fail(missing);

withLock(path.join(root, '.setup-lock'), () => {
  install();
  buildAddon(process.argv.slice(2));
  compileTypeScript();
});

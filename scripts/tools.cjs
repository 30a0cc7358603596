// Looks for what npm can not install: CMake, a C++ compiler and make or ninja.

const fs = require('node:fs');
const path = require('node:path');
const { spawnSync } = require('node:child_process');

function onPath(name) {
  const extensions = process.platform === 'win32' ? ['.exe', '.cmd', '.bat'] : [''];
  return (process.env.PATH ?? '')
    .split(path.delimiter)
    .some((folder) => extensions.some((extension) => fs.existsSync(path.join(folder, name + extension))));
}

function hasCMake() {
  if (!onPath('cmake')) return false;
  const { stdout } = spawnSync('cmake', ['--version'], { encoding: 'utf8' });
  const [, major, minor] = /version (\d+)\.(\d+)/.exec(stdout ?? '') ?? [];
  return Number(major) > 3 || (Number(major) === 3 && Number(minor) >= 24);
}

function howToInstall() {
  if (process.platform === 'darwin') return 'on macOS run `xcode-select --install && brew install cmake`';
  if (onPath('dnf')) return 'on Fedora or RHEL run `dnf install cmake gcc-c++ make`';
  return 'on Debian or Ubuntu run `apt-get install cmake g++ make`';
}

/** One sentence that says what to install, or nothing when all is there. */
function missingTools() {
  const missing = [];
  if (!hasCMake()) missing.push('CMake 3.24 or newer');
  const compiler = process.env.CXX ?? '';
  if (!fs.existsSync(compiler) && ![compiler, 'c++', 'g++', 'clang++'].some((name) => name && onPath(name))) {
    missing.push('a C++20 compiler');
  }
  if (!onPath('make') && !onPath('ninja')) missing.push('make');
  if (missing.length === 0) return '';
  const list = new Intl.ListFormat('en').format(missing);
  return `infini-stream is compiled on first use and needs ${list}: ${howToInstall()}.`;
}

module.exports = { missingTools };

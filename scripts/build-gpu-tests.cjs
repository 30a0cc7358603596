// Builds what `npm run gpu:verify` and `npm run gpu:bench` need on a machine that has a GPU but no compiler: the addon
// with code for every GPU, and in build/gpu the kernel tests, the golden cases and the kernel benchmark.

const fs = require('node:fs');
const path = require('node:path');
const { execFileSync } = require('node:child_process');
const { install, make, releaseOptions, releaseTree, root, target } = require('./build.cjs');

const programs = ['kernel_tests', 'golden', 'kernel_bench'];
const tree = releaseTree();
make({
  tree,
  options: [...releaseOptions, '-DINFINI_CUDA=ON'],
  targets: ['infini_stream', ...programs],
});

install(path.join(tree, 'Release', path.basename(target)), target);
for (const name of programs) install(path.join(tree, 'gpu', name), path.join(root, 'build/gpu', name));

const say = (program, args) => execFileSync(program, args, { cwd: root, encoding: 'utf8' }).trim();
const built = {
  commit: say('git', ['rev-parse', 'HEAD']) + (say('git', ['status', '--porcelain']) === '' ? '' : '-dirty'),
  nvcc: /V([\d.]+)/.exec(say('nvcc', ['--version']))?.[1] ?? 'unknown',
  date: new Date().toISOString(),
};
fs.writeFileSync(path.join(root, 'build/gpu/built.json'), `${JSON.stringify(built, null, 2)}\n`);

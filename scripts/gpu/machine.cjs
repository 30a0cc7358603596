// What gpu-verify and gpu-bench record of where they ran.

const fs = require('node:fs');
const path = require('node:path');
const { spawnSync } = require('node:child_process');

const root = path.join(__dirname, '../..');

/** What `npm run build:gpu-tests` left: commit, nvcc and date of the programs. */
function built() {
  const file = path.join(root, 'build/gpu/built.json');
  if (!fs.existsSync(file))
    throw new Error(
      'build/gpu is missing: run `npm run build:gpu-tests` where nvcc is, and carry build/ along',
    );
  return JSON.parse(fs.readFileSync(file, 'utf8'));
}

/** Name, compute capability and driver of the first CUDA device, as the addon sees it; undefined without one. */
function gpu() {
  const { listDevices } = require(root);
  return listDevices().find(({ backend }) => backend === 'cuda');
}

function has(program) {
  return spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0;
}

/** 'NVIDIA H100 80GB HBM3' as 'h100-80gb-hbm3'. */
function slug(name) {
  return name
    .toLowerCase()
    .replace(/^nvidia\s+/, '')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
}

/** Writes bench/results/<what>-<gpu>-<date>.json and returns its path from the root. */
function writeResult(what, device, result, now = new Date()) {
  const file = `bench/results/${what}-${slug(device)}-${now.toISOString().slice(0, 10)}.json`;
  fs.mkdirSync(path.join(root, 'bench/results'), { recursive: true });
  fs.writeFileSync(path.join(root, file), `${JSON.stringify(result, null, 2)}\n`);
  return file;
}

module.exports = { built, gpu, has, root, slug, writeResult };

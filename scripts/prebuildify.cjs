// Makes prebuilds/<platform>-<arch>/infini-stream.<libc>.node, the file that the published package carries.

const fs = require('node:fs');
const path = require('node:path');
const prebuildify = require('prebuildify');
const { hasCuda, releaseTree, root } = require('./build.cjs');

// prebuildify moves the addon out of build/Release of the folder it works in. A folder of its own leaves the
// developer's build where it is.
const cwd = path.join(root, 'build-cmake/prebuild');
fs.mkdirSync(cwd, { recursive: true });

prebuildify(
  {
    cwd,
    out: root,
    name: 'infini-stream',
    napi: true,
    strip: true,
    tagLibc: true,
    nodeGyp: path.join(__dirname, 'node-gyp-shim.cjs'),
  },
  (error) => {
    if (error) {
      console.error(error.message);
      process.exit(1);
    }
    if (!hasCuda(releaseTree()))
      console.error('This prebuild has no CUDA backend: nvcc 12 or newer was not found.');
  },
);

// Builds build/Emulated/infini_stream.node, an addon whose CUDA kernels run on the host (test/cuda-on-host): for tests,
// which take it when INFINI_TEST_DEVICE is cuda-emulated. It is not shipped.

const path = require('node:path');
const { build, root } = require('./build.cjs');

build({
  tree: path.join(root, 'build-emulated'),
  to: path.join(root, 'build/Emulated'),
  options: ['-DINFINI_CUDA=EMULATED'],
});

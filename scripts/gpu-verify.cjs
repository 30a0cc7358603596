// Everything that only a GPU can tell, within five minutes, on a machine that has one, Node and a driver, but no
// compiler: the working tree comes with node_modules, dist and build, made elsewhere by `npm run build:gpu-tests`.
// Writes bench/results/gpu-verify-<gpu>-<date>.json, and the golden results of the PTX wrappers, which the host's tests
// compare the emulation with.
//   npm run gpu:verify [-- --only golden,kernels,repeats,suite,sanitizer]

const { jest, suite: selection } = require('./device-suite.cjs');
const { built, gpu, writeResult } = require('./gpu/machine.cjs');
const { takeOnly } = require('./gpu/arguments.cjs');
const { steps } = require('./gpu/steps.cjs');
const { verify } = require('./gpu/verify.cjs');
const { deadlineIn } = require('./gpu/within.cjs');

const limit = 300; // seconds

async function main(args) {
  const deadline = deadlineIn(limit);
  const { only, rest } = takeOnly(args, Object.keys(steps));
  if (rest.length > 0) throw new Error(`unknown arguments: ${rest.join(' ')}`);
  const device = gpu();
  if (!device) throw new Error('there is no CUDA device: `npx infini-stream devices` says why');
  const { commit, nvcc } = built();
  const result = { device: device.name, computeCapability: device.computeCapability, driver: device.driver };
  Object.assign(result, { commit, nvcc, date: new Date().toISOString() });
  const given = { commit, jest, selection };
  Object.assign(result, await verify(steps, only, { deadline, say: console.log, ...given }));
  result.seconds = Math.round(limit - deadline.left());
  console.log(`${result.failed} failed: ${writeResult('gpu-verify', device.name, result)}`);
  process.exitCode = result.failed === 0 ? 0 : 1;
}

// What is running has a process group of its own, which only our 'exit' ends.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(2));

main(process.argv.slice(2)).catch((error) => {
  console.error(`gpu:verify: ${error.message}`);
  process.exitCode = 2;
});

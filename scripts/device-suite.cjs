// Runs what jest has to say of a device on another device than the CPU.
//   node scripts/device-suite.cjs cuda|cuda-emulated [arguments of jest]

const path = require('node:path');
const { spawnSync } = require('node:child_process');

const root = path.join(__dirname, '..');

/** They say nothing of a device. */
const left = ['bench', 'cli', 'cuda-on-host', 'examples', 'package', 'parity/simd', 'reference'];
const jest = path.join(root, 'node_modules/jest/bin/jest.js');
const suite = ['--testPathIgnorePatterns', ...left.map((folder) => `<rootDir>/test/${folder}`)];

// The emulation does work some time until it is waited for: that finds what nobody waits for.
const emulatedEnvironment = { INFINI_TEST_DEVICE: 'cuda-emulated', INFINI_EMULATED_LAZY: '2' };

module.exports = { emulatedEnvironment, jest, suite };

if (require.main === module) {
  const [device, ...args] = process.argv.slice(2);
  const { status } = spawnSync(process.execPath, [jest, ...args, ...suite], {
    cwd: root,
    stdio: 'inherit',
    env: { ...emulatedEnvironment, ...process.env, INFINI_TEST_DEVICE: device },
  });
  process.exitCode = status ?? 1;
}

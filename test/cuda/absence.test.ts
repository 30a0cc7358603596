import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { clean, run } from '../lifecycle/child';
import { emulatedTest } from './only';

const root = join(__dirname, '../..');

/** Machines on which no GPU can be used, and what is said of them. */
const machines: [string, Record<string, string>, string][] = [
  ['without a driver', { INFINI_EMULATED_DRIVER: '0' }, 'no NVIDIA driver is installed'],
  [
    'with a driver that is too old',
    { INFINI_EMULATED_DRIVER: '12020' },
    'the NVIDIA driver is too old: it supports CUDA 12.2, and CUDA 13.0 is needed',
  ],
  [
    'with a driver and no GPU',
    { INFINI_EMULATED_DEVICES: '0' },
    'there is a driver but no NVIDIA GPU that this process may use',
  ],
  [
    'with a GPU that is too old',
    { INFINI_EMULATED_CAPABILITY: '75' },
    'the GPU CUDA emulation on the host has compute capability 7.5, and 8.0 is needed',
  ],
];

const program = `
  const { listDevices } = require(${JSON.stringify(root)});
  let refusal;
  try {
    openDevice('cuda');
  } catch ({ code, message }) {
    refusal = { code, message };
  }
  const device = openDevice('auto');
  const ids = listDevices().map(({ id }) => id);
  console.log(JSON.stringify({ refusal, auto: device.info.id, ids }));
`;

function devices(env: Record<string, string>, ...args: string[]): string {
  const cli = join(root, 'dist/cli/main.js');
  const child = spawnSync(process.execPath, [cli, 'devices', ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  expect(child.stderr).toBe('');
  expect(child.status).toBe(0);
  return child.stdout;
}

describe.each(machines)('on a machine %s', (_, env, reason) => {
  emulatedTest("'cuda' is refused with the reason, and 'auto' is the CPU", async () => {
    const ending = await run(program, [], env);
    expect(ending).toMatchObject(clean);
    expect(JSON.parse(ending.output)).toEqual({
      refusal: {
        code: 'ERR_NO_DEVICE',
        message: `Expected a CUDA device for 'cuda' but ${reason}; 'cpu' is available`,
      },
      auto: 'cpu',
      ids: ['cpu'],
    });
  });

  emulatedTest('the command `devices` says it', () => {
    expect(devices(env)).toContain(`No GPU is used: ${reason}\n`);
    expect(JSON.parse(devices(env, '--json')).cuda).toEqual({ used: false, reason });
  });
});

emulatedTest('the command `devices` shows a GPU with what is known of it', () => {
  const shown = devices({});
  expect(shown).toMatch(
    /^cuda:0 +CUDA emulation on the host +.*computeCapability 8\.0.*driver .*CUDA 13\.0/m,
  );
  expect(shown).not.toContain('No GPU');
  expect(JSON.parse(devices({}, '--json')).cuda).toEqual({ used: true, reason: null });
});

emulatedTest("a GPU that the kernels were not compiled for is refused, and 'auto' is the CPU", async () => {
  const ending = await run(program, [], { INFINI_EMULATED_NO_CODE: '1' });
  expect(ending).toMatchObject(clean);
  const { refusal, auto } = JSON.parse(ending.output);
  expect(refusal.code).toBe('ERR_NO_DEVICE');
  expect(refusal.message).toMatch(/'cuda:0'.*cudaErrorNoKernelImageForDevice/);
  expect(auto).toBe('cpu');
});

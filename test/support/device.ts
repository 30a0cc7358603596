import { type Device, type DeviceOptions, openDevice } from '../../lib';

/**
 * What the suite runs on: the CPU; a GPU (INFINI_TEST_DEVICE=cuda); or the CUDA backend with its kernels executed on
 * the host (INFINI_TEST_DEVICE=cuda-emulated, after `npm run build:emulated`).
 */
export const TEST_DEVICE = testDevice(process.env.INFINI_TEST_DEVICE);
export const onCuda = TEST_DEVICE !== 'cpu';
export const emulated = TEST_DEVICE === 'cuda-emulated';

function testDevice(value: string | undefined): 'cpu' | 'cuda' | 'cuda-emulated' {
  if (value === undefined || value === '' || value === 'cpu') return 'cpu';
  if (value === 'cuda' || value === 'cuda-emulated') return value;
  throw new Error(`INFINI_TEST_DEVICE is '${value}' instead of cpu, cuda or cuda-emulated`);
}

/** The name under which `openDevice` knows the device of this run. */
export const DEVICE_ID = onCuda ? 'cuda' : 'cpu';

export const openTestDevice = (options?: DeviceOptions): Device => openDevice(DEVICE_ID, options);

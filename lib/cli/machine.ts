import os from 'node:os';
import type { DeviceInfo } from '../index';
import { packageVersion } from './package';

/** When, with what and where something was measured. */
export interface Machine {
  date: string;
  version: string;
  node: string;
  cpu: string;
  device: DeviceInfo;
}

export const machineOf = (device: DeviceInfo): Machine => ({
  date: new Date().toISOString(),
  version: packageVersion(),
  node: process.version,
  cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
  device,
});

/** What was typed, to do it again. */
export const commandLine = (): string => ['npx infini-stream', ...process.argv.slice(2)].join(' ');

import { Command } from 'commander';
import { type DeviceInfo, listDevices } from '../index';
import { native } from '../native';
import { bytes, table } from './format';

export function devicesCommand(): Command {
  return new Command('devices')
    .description('list the devices of this machine, and say why a GPU is not used')
    .option('--json', 'print JSON')
    .action(devices);
}

function devices({ json }: { json?: boolean }): void {
  const found = listDevices();
  const reason = native.cudaAbsence() || null;
  if (json) {
    console.log(JSON.stringify({ devices: found, cuda: { used: reason === null, reason } }, null, 2));
    return;
  }
  const rows = found.map((info) => [info.id, info.name, details(info)]);
  console.log(table([['device', 'name', 'details'], ...rows], '<<<', ''));
  if (reason !== null) console.log(`\nNo GPU is used: ${reason}`);
}

function details(info: DeviceInfo): string {
  const shown = Object.entries(info).filter(([key]) => !['id', 'name', 'backend'].includes(key));
  return shown
    .map(([key, value]) => `${key} ${key.endsWith('Bytes') ? bytes(Number(value)) : value}`)
    .join(', ');
}

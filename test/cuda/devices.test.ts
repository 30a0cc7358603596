import { listDevices, openDevice } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectThrow } from '../support/failures';
import { cudaTest } from './only';

cudaTest('a device tells its name, compute capability, memory and driver', () => {
  const listed = listDevices().filter(({ backend }) => backend === 'cuda');
  expect(listed.length).toBeGreaterThan(0);
  for (const [i, info] of listed.entries()) {
    expect(info.id).toMatch(/^cuda:\d+$/);
    expect(info.name).toMatch(/.{3}/);
    const [major, minor] = (info.computeCapability ?? '').split('.').map(Number);
    expect(major).toBeGreaterThanOrEqual(8);
    expect(minor).toBeGreaterThanOrEqual(0);
    expect(info.totalBytes).toBeGreaterThan(0);
    expect(info.freeBytes).toBeGreaterThan(0);
    expect(info.freeBytes).toBeLessThanOrEqual(info.totalBytes as number);
    expect(info.driver).toMatch(/CUDA \d+\.\d+/);
    if (i === 0) {
      const device = openTestDevice();
      expect(device.info).toMatchObject({ id: info.id, name: info.name, totalBytes: info.totalBytes });
      device.close();
    }
  }
});

cudaTest(
  "'cuda' and 'auto' are the first GPU; one that is not there is refused, with how many there are",
  () => {
    const [first] = listDevices().filter(({ backend }) => backend === 'cuda');
    for (const id of ['cuda', 'auto', first.id] as const) {
      const device = openDevice(id as 'cuda');
      expect(device.info.id).toBe(first.id);
      device.close();
    }
    for (const id of ['cuda:999', 'cuda:999999'] as const) {
      expectThrow(() => openDevice(id), { code: 'ERR_NO_DEVICE', says: [id, /no more than \d+/] });
    }
    expectThrow(() => openDevice('cuda:9999999'), { code: 'ERR_OUT_OF_RANGE' });
  },
);

cudaTest('handles on one GPU share its engine; the CPU beside it is another', () => {
  const [one, two, cpu] = [openTestDevice(), openTestDevice(), openDevice('cpu')];
  const before = { streams: two.stats().streams, cpu: cpu.stats().streams };
  const stream = one.createStream({ heads: 1, headDim: 4 });
  expect(two.stats().streams).toBe(before.streams + 1);
  expect(cpu.stats().streams).toBe(before.cpu);
  stream.close();
  for (const device of [one, two, cpu]) device.close();
});

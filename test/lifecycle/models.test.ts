import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { DEVICE_ID, onCuda } from '../support/device';
import { writeTinyModel } from '../support/tiny-model';
import { clean, run } from './child';

const folder = mkdtempSync(path.join(os.tmpdir(), 'infini-models-'));
// Of a thousand tokens each, four bytes a token.
const pieces = onCuda ? 8 : 300;
const prelude = `
  const { loadModel } = require(${JSON.stringify(path.join(__dirname, '../..'))});
  const load = () => loadModel(${JSON.stringify(folder)}, { device: ${JSON.stringify(DEVICE_ID)} });
  const busy = async () => {
    const model = await load();
    const session = model.createSession();
    session.feed(new Int32Array(1e6).fill(3)).catch(() => {});
    return { model, session };
  };
`;
beforeAll(() => writeTinyModel(folder, { seed: 8 }));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('workers that are terminated while they load and feed take nobody with them', async () => {
  const ending = await run(`${prelude}
    const body = ${JSON.stringify(prelude)} + '(async () => { for (;;) { await Promise.all([busy(), busy(), load()]); parentPort.postMessage(1); } })();';
    (async () => {
      for (let round = 0; round < 6; round++) {
        const one = worker(body);
        if (round % 2) await new Promise((resolve) => one.once('message', resolve));
        else await sleep(40 * round);
        await one.terminate();
      }
      const model = await load();
      const session = model.createSession();
      await session.feed([1, 2, 3]);
      console.log(session.tokens, session.logits().every(Number.isFinite));
    })();`);
  expect(ending).toMatchObject({ ...clean, output: '3 true\n' });
});

test('a process that exits while a model works ends at once', async () => {
  const ending = await run(`${prelude} busy().then(() => setTimeout(() => process.exit(0), 30));`);
  expect(ending).toMatchObject({ ...clean, output: '' });
});

test('a process waits for a feed, and not for an open model', async () => {
  const ending = await run(`${prelude}
    load().then((model) => model.createSession().feed(new Int32Array(3000).fill(1)).then(() => console.log('fed')));`);
  expect(ending).toMatchObject({ ...clean, output: 'fed\n' });
});

test('sessions and models that are forgotten are collected', async () => {
  const ending = await run(
    `${prelude}
    (async () => {
      const { openDevice } = require(${JSON.stringify(path.join(__dirname, '../..'))});
      const device = openDevice(${JSON.stringify(DEVICE_ID)});
      await (async () => {
        const model = await loadModel(${JSON.stringify(folder)}, { device });
        for (let i = 0; i < 20; i++) await model.createSession().feed([1, 2]);
      })();
      for (let i = 0; i < 20 && device.stats().streams > 0; i++) { gc(); await sleep(20); }
      console.log(device.stats().streams, device.stats().weightBytes);
    })();`,
    ['--expose-gc'],
  );
  expect(ending).toMatchObject({ ...clean, output: '0 0\n' });
});

test('a feed keeps nothing of what it has fed', async () => {
  const ending = await run(
    `${prelude}
    (async () => {
      const model = await load();
      const least = [Infinity, Infinity]; // bytes held in each half; garbage comes and goes
      async function* source() {
        for (let i = 0; i < ${pieces}; i++) {
          yield new Int32Array(1000).fill(i % 20);
          gc();
          const half = Math.floor((2 * i) / ${pieces});
          least[half] = Math.min(least[half], process.memoryUsage().arrayBuffers);
        }
      }
      await model.createSession().feed(source());
      console.log(least[1] - least[0] < ${pieces} * 500);
    })();`,
    ['--expose-gc'],
  );
  expect(ending).toMatchObject({ ...clean, output: 'true\n' });
});

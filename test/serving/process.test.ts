import { clean, run } from '../lifecycle/child';

const prelude = `
  const { StreamScheduler } = require(${JSON.stringify(`${__dirname}/../..`)});
  const ones = new Float32Array(32).fill(1);
  const input = { q: ones, k: ones, v: ones };
  const config = { heads: 2, headDim: 16, segmentLength: 8 };
`;

test('streams that are dropped without close make room for others', async () => {
  const ending = await run(
    `${prelude}
    (async () => {
      const scheduler = new StreamScheduler(open(), { maxStreams: 8 });
      const held = scheduler.createStream(config);
      await held.attend(input);
      for (let i = 0; i < 100; i++) {
        await scheduler.createStream(config).attend(input);
        for (let j = 0; j < 50 && scheduler.stats().streams > 6; j++) { global.gc(); await sleep(1); }
      }
      console.log(held.closed, (await held.attend(input)).length, held.tokens);
    })();`,
    ['--expose-gc'],
  );
  expect(ending).toMatchObject({ ...clean, output: 'false 32 2\n' });
});

test('requests keep the process alive until they have settled; an idle scheduler does not', async () => {
  const ending = await run(
    `${prelude}
    const scheduler = new StreamScheduler(open(), { maxBatchTokens: 2, deviceBytes: 10000 });
    const streams = Array.from({ length: 6 }, () => scheduler.createStream(config));
    const long = new Float32Array(32 * 20).fill(0.5);
    Promise.all(streams.map((one) => one.attend({ q: long, k: long, v: long }))).then(() => {
      console.log(streams.map(({ tokens }) => tokens).join());
    });`,
  );
  expect(ending).toMatchObject({ ...clean, output: '20,20,20,20,20,20\n' });
});

test('a scheduler in the middle of its work ends with its thread', async () => {
  const ending = await run(
    `(async () => {
      const one = worker(${JSON.stringify(`${prelude}
        const scheduler = new StreamScheduler(open(), { maxBatchTokens: 64, deviceBytes: 10000 });
        const long = new Float32Array(32 * 2000).fill(0.5);
        for (let i = 0; i < 20; i++) scheduler.createStream(config).attend({ q: long, k: long, v: long });
        setTimeout(() => parentPort.postMessage(1), 20);`)});
      await new Promise((resolve) => one.once('message', resolve));
      await one.terminate();
      const { stream, input } = small();
      console.log((await stream.attend(input)).every(Number.isFinite));
    })();`,
  );
  expect(ending).toMatchObject({ ...clean, output: 'true\n' });
});

import { sizes } from '../support/sizes';
import { clean, run } from './child';

/** Tokens of a call among many. */
const some = sizes.crowdTokens;

test('pending work keeps the process alive until it has settled', async () => {
  const ending = await run(`large().pending.then(() => console.log('settled'));`);
  expect(ending).toMatchObject({ ...clean, output: 'settled\n' });
});

test('idle devices and streams do not keep it alive', async () => {
  const ending = await run(`
    const { stream, input } = small();
    stream.attend(input).then(() => console.log('idle'));
  `);
  expect(ending).toMatchObject({ ...clean, output: 'idle\n' });
});

test('process.exit in mid-work ends at once and cleanly', async () => {
  const ending = await run(`large(); setTimeout(() => { console.log('exit'); process.exit(0); }, 50);`);
  expect(ending).toMatchObject({ ...clean, output: 'exit\n' });
  expect(ending.milliseconds).toBeLessThan(sizes.shortProcess);
});

test('an uncaught error in mid-work ends with its code and no signal', async () => {
  const ending = await run(`large(); setTimeout(() => { throw new Error('mine'); }, 50);`);
  expect(ending).toMatchObject({ code: 1, signal: null });
  expect(ending.output).toContain('mine');
});

test(`worker.terminate in mid-work settles within ${sizes.prompt} ms, again and again, and the process goes on`, async () => {
  const ending = await run(`(async () => {
    const took = [];
    for (let round = 0; round < 6; round++) {
      const one = worker('large(); for (let i = 0; i < 50; i++) { const s = small(); s.stream.attend(s.input); } parentPort.postMessage(1);');
      await new Promise((resolve) => one.once('message', resolve));
      await sleep(round * 7);
      const start = performance.now();
      await one.terminate();
      took.push(performance.now() - start);
    }
    const { stream, input } = small();
    const output = await stream.attend(input);
    took.sort((a, b) => a - b); // the machine itself may stall now and then
    console.log(output.every(Number.isFinite), stream.tokens, took[3] < ${sizes.prompt} ? 'prompt' : took);
  })();`);
  expect(ending).toMatchObject({ ...clean, output: 'true 3 prompt\n' });
});

test('process.exit in a worker in mid-work ends that worker alone', async () => {
  const ending = await run(`
    const one = worker('large(); setTimeout(() => process.exit(3), 30);');
    one.once('exit', async (code) => {
      const { stream, input } = small();
      await stream.attend(input);
      console.log(code, stream.tokens);
    });
  `);
  expect(ending).toMatchObject({ ...clean, output: '3 3\n' });
});

test('an addon used by workers only outlives each of them', async () => {
  const ending = await run(`(async () => {
    const { Worker } = require('node:worker_threads');
    const body = prelude + 'const s = small(); s.stream.attend(s.input).then(() => parentPort.postMessage(s.stream.tokens)); large();';
    for (let round = 0; round < 4; round++) {
      const one = new Worker(body.replace(/const \\{ openDevice \\}/, 'const { openDevice }'), { eval: true });
      await new Promise((resolve) => one.once('message', resolve));
      await one.terminate();
    }
    await sleep(300);
    console.log('survived');
  })();`);
  expect(ending).toMatchObject({ ...clean, output: 'survived\n' });
});

test('several workers at once get the results of one alone', async () => {
  const ending = await run(`(async () => {
    const body = 'const s = small(${some}); (async () => { for (let i = 0; i < 20; i++) await s.stream.attend(s.input); parentPort.postMessage(Buffer.from(s.stream.memory().matrix.buffer).toString("hex")); })();';
    const workers = Array.from({ length: 4 }, () => worker(body));
    const found = await Promise.all(workers.map((one) => new Promise((resolve, reject) => { one.once('message', resolve); one.once('error', reject); })));
    const { stream, input } = small(${some});
    for (let i = 0; i < 20; i++) stream.attendSync(input);
    const alone = Buffer.from(stream.memory().matrix.buffer).toString('hex');
    console.log(found.length, found.every((hex) => hex === alone));
  })();`);
  expect(ending).toMatchObject({ ...clean, output: '4 true\n' });
});

test('streams that are dropped without close are collected', async () => {
  const ending = await run(
    `(async () => {
      const device = open();
      for (let i = 0; i < 300; i++) {
        device.createStream({ heads: 2, headDim: 64, segmentLength: 512 });
        if (i % 20 === 0) { global.gc(); await sleep(1); }
      }
      for (let i = 0; i < 5; i++) { global.gc(); await sleep(5); }
      console.log(device.stats().streams <= 2);
    })();`,
    ['--expose-gc'],
  );
  expect(ending).toMatchObject({ ...clean, output: 'true\n' });
});

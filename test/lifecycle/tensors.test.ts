import { clean, run } from './child';

/** Device tensors, host buffers and batches when their process, thread or owner goes away. */

const gc = ['--expose-gc'];
/** Collects until the condition holds; for what is freed a turn or two after its collection. */
const collect = `
  const until = async (done) => {
    for (let i = 0; i < 200 && !done(); i++) { global.gc(); await sleep(5); }
    return done();
  };
`;

test('tensors that are dropped without close() are collected', async () => {
  const ending = await run(
    `${collect}(async () => {
      const device = open();
      for (let i = 0; i < 100; i++) {
        device.tensor([1 << 18], 'float32');
        if (i % 10 === 0) { global.gc(); await sleep(1); }
      }
      console.log(await until(() => device.stats().tensorBytes === 0));
    })();`,
    gc,
  );
  expect(ending).toMatchObject({ ...clean, output: 'true\n' });
});

test('host buffers are freed when they are collected, not before', async () => {
  const ending = await run(
    `${collect}(async () => {
      const device = open();
      let kept = new Uint8Array(device.hostBuffer(1 << 20)).fill(7);
      for (let i = 0; i < 100; i++) {
        new Uint8Array(device.hostBuffer(1 << 20)).fill(1);
        if (i % 10 === 0) { global.gc(); await sleep(1); }
      }
      console.log(await until(() => device.stats().tensorBytes === 1 << 20), kept.every((x) => x === 7));
      kept = undefined;
      console.log(await until(() => device.stats().tensorBytes === 0));
    })();`,
    gc,
  );
  expect(ending).toMatchObject({ ...clean, output: 'true true\ntrue\n' });
});

test('what a pending call uses stays, although JavaScript has forgotten it', async () => {
  const ending = await run(
    `${collect}
    const device = open();
    async function calls() {
      const twin = small(40).stream;
      const { tensor, input } = small(40);
      const wanted = Buffer.from(twin.attendSync(input).buffer);
      const forgotten = [];
      for (let i = 0; i < 20; i++) {
        // The stream, its inputs and its out are reachable from the call alone.
        forgotten.push((() => {
          const { stream } = small(40);
          const buffer = device.hostBuffer(2 * tensor.byteLength);
          const q = new Float32Array(buffer, 0, tensor.length);
          q.set(tensor);
          const k = device.tensor([tensor.length], 'float32', tensor);
          const out = i % 2 ? new Float32Array(buffer, tensor.byteLength) : device.tensor([40, 2, 16], 'float32');
          return stream.attend({ q, k, v: k }, { out });
        })());
        global.gc();
      }
      await until(() => device.stats().pendingCalls === 0);
      let same = 0;
      for (const out of await Promise.all(forgotten)) {
        const data = out.read ? await out.read() : out;
        same += Buffer.from(data.buffer, data.byteOffset, data.byteLength).equals(wanted);
      }
      return same;
    }
    calls().then(async (same) => console.log(same, await until(() => device.stats().tensorBytes === 0)));`,
    gc,
  );
  expect(ending).toMatchObject({ ...clean, output: '20 true\n' });
});

test('a batch keeps its streams, and both are collected together', async () => {
  const ending = await run(
    `${collect}(async () => {
      const device = open();
      const make = () => device.createBatch(Array.from({ length: 8 }, () => small(1, device).stream));
      let batch = make();
      const rows = new Float32Array(8 * 32).fill(1);
      for (let i = 0; i < 20; i++) { make().step({ q: rows, k: rows, v: rows }); global.gc(); await sleep(1); }
      await until(() => device.stats().streams === 8);
      batch.stepSync({ q: rows, k: rows, v: rows });
      console.log(device.stats().streams, batch.streams.every(({ tokens }) => tokens === 1));
      batch = undefined;
      console.log(await until(() => device.stats().streams === 0));
    })();`,
    gc,
  );
  expect(ending).toMatchObject({ ...clean, output: '8 true\ntrue\n' });
});

test('pending reads, batches and steps keep the process alive; idle ones do not', async () => {
  const ending = await run(`
    const device = open();
    const { stream, input } = small(1, device);
    const batch = device.createBatch([stream]);
    device.hostBuffer(64);
    const tensor = device.tensor([4], 'float32', Float32Array.of(1, 2, 3, 4));
    tensor.read().then((read) => console.log(read.join()));
    batch.step(input).then(() => console.log('step'));
    device.attendBatch([{ stream, ...input }]).then(([{ status }]) => console.log(status, stream.tokens));
  `);
  expect(ending).toMatchObject(clean);
  expect(ending.output.trim().split('\n').sort()).toEqual(['1,2,3,4', 'fulfilled 2', 'step']);
});

test.each([
  ['process.exit', 'process.exit(0)', 0, /^at work\n$/],
  ['an uncaught error', 'throw new Error("mine")', 1, /^at work\n[\s\S]*mine/],
])('%s in mid-work ends at once and cleanly', async (_, end, code, output) => {
  const ending = await run(`
    const device = open();
    const { stream, tensor, out } = large(device);
    const others = [1, 2, 3].map(() => small(1, device));
    const batch = device.createBatch([others[0].stream, others[1].stream]);
    const rows = new Float32Array(device.hostBuffer(256));
    batch.step({ q: rows, k: rows, v: rows });
    device.attendBatch(others.map(({ stream, input }) => ({ stream, ...input })));
    tensor.read();
    setTimeout(() => { console.log('at work'); ${end}; }, 30);
  `);
  expect(ending).toMatchObject({ code, signal: null, output: expect.stringMatching(output) });
  expect(ending.milliseconds).toBeLessThan(10_000);
});

test('worker.terminate in mid-work frees what the worker had, again and again, and the process goes on', async () => {
  const ending = await run(
    `${collect}(async () => {
      const device = open();
      for (let round = 0; round < 6; round++) {
        const one = worker(\`
          const device = open();
          const { tensor } = large(device);
          const others = Array.from({ length: 20 }, () => small(1, device));
          const batch = device.createBatch(others.map(({ stream }) => stream));
          const rows = new Float32Array(device.hostBuffer(20 * 128));
          const out = device.tensor([20, 2, 16], 'float32');
          batch.step({ q: rows, k: rows, v: rows, out });
          device.attendBatch(others.map(({ stream, input }) => ({ stream, ...input })));
          tensor.read();
          parentPort.postMessage(1);
        \`);
        await new Promise((resolve) => one.once('message', resolve));
        await sleep(round * 7);
        await one.terminate();
      }
      const { stream, input } = small(3, device);
      const output = await stream.attend(input);
      stream.close();
      const left = () => { const s = device.stats(); return s.streams + s.tensorBytes + s.pendingCalls; };
      console.log(output.every(Number.isFinite), await until(() => left() === 0) || JSON.stringify(device.stats()));
    })();`,
    gc,
  );
  expect(ending).toMatchObject({ ...clean, output: 'true true\n' });
});

test('a host buffer of a worker does not reach other threads, and dies with it', async () => {
  const ending = await run(
    `${collect}(async () => {
      const device = open();
      const one = worker(\`
        const buffer = open().hostBuffer(1 << 20);
        new Uint8Array(buffer).fill(3);
        const posts = [() => parentPort.postMessage(buffer), () => parentPort.postMessage(buffer, [buffer])];
        for (const post of posts) { try { post(); } catch { parentPort.postMessage('refused'); } }
        parentPort.postMessage(buffer.byteLength);
      \`);
      const seen = [];
      one.on('message', (message) => seen.push(message));
      await new Promise((resolve) => one.once('exit', resolve));
      const copies = seen.filter((message) => message instanceof ArrayBuffer);
      console.log(copies.every((copy) => new Uint8Array(copy).every((x) => x === 3)), seen.at(-1));
      console.log(await until(() => device.stats().tensorBytes === 0));
    })();`,
    gc,
  );
  expect(ending).toMatchObject({ ...clean, output: 'true 1048576\ntrue\n' });
});

test('several workers at once step batches that get the results of one alone', async () => {
  const ending = await run(`(async () => {
    const body = \`(async () => {
      const device = open();
      const streams = Array.from({ length: 16 }, () => small(1, device).stream);
      const batch = device.createBatch(streams);
      const rows = Float32Array.from({ length: 16 * 32 }, (_, i) => Math.sin(i));
      for (let i = 0; i < 30; i++) await batch.step({ q: rows, k: rows, v: rows });
      parentPort.postMessage(streams.map((s) => Buffer.from(s.memory().matrix.buffer).toString('hex')).join());
    })();\`;
    const workers = Array.from({ length: 4 }, () => worker(body));
    const found = await Promise.all(workers.map((one) => new Promise((resolve, reject) => {
      one.once('message', resolve);
      one.once('error', reject);
    })));
    const alone = await new Promise((resolve) => worker(body).once('message', resolve));
    console.log(found.length, found.every((hex) => hex === alone));
  })();`);
  expect(ending).toMatchObject({ ...clean, output: '4 true\n' });
});

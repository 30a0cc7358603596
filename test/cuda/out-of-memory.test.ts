import { clean, run } from '../lifecycle/child';
import { emulatedTest } from './only';

const MEMORY = { INFINI_EMULATED_MEMORY: String(48 << 20) };

emulatedTest('when the GPU is full new streams are refused, and those that are open go on', async () => {
  const ending = await run(
    `
    const device = open();
    const config = { heads: 4, headDim: 64, segmentLength: 1024 }; // 2.2 MB
    const first = device.createStream(config), twin = device.createStream(config);
    const data = Float32Array.from({ length: 256 * 9 }, (_, i) => Math.sin(i));
    const input = { q: data, k: data, v: data };
    for (const one of [first, twin]) one.attendSync(input);
    const before = device.stats();
    const more = [];
    let refusal = {};
    try { for (let i = 0; i < 100; i++) more.push(device.createStream(config)); } catch (error) { refusal = error; }
    let tensorRefusal = {};
    try { device.tensor([1 << 26], 'float32'); } catch (error) { tensorRefusal = error; }
    const same = Buffer.compare(Buffer.from(first.attendSync(input).buffer), Buffer.from(twin.attendSync(input).buffer));
    for (const one of more) one.close();
    const after = device.stats();
    const again = device.createStream(config);
    console.log(JSON.stringify({
      code: refusal.code, message: refusal.message, tensor: tensorRefusal.code, many: more.length > 5, same,
      streams: after.streams - before.streams, bytes: after.streamBytes - before.streamBytes, again: again.tokens,
    }));
  `,
    [],
    MEMORY,
  );
  expect(ending).toMatchObject(clean);
  expect(JSON.parse(ending.output)).toEqual({
    code: 'ERR_OUT_OF_MEMORY',
    message: expect.stringMatching(/\d+ bytes/),
    tensor: 'ERR_OUT_OF_MEMORY',
    many: true,
    same: 0,
    streams: 0,
    bytes: 0,
    again: 0,
  });
});

emulatedTest('a call that finds no room for its scratch fails alone, and changes nothing', async () => {
  const ending = await run(
    `
    (async () => {
      const device = open();
      const stream = device.createStream({ heads: 4, headDim: 64, segmentLength: 256 });
      const small = device.createStream({ heads: 1, headDim: 4, segmentLength: 8 });
      const few = new Float32Array(256 * 4).fill(0.5);
      stream.attendSync({ q: few, k: few, v: few });
      const [q, out] = [0, 1].map(() => device.tensor([20000, 4, 64], 'float32')); // 20 MB each: no room for a third
      const results = await Promise.allSettled([
        stream.attend({ q, k: q, v: q }, { out }),
        small.attend({ q: new Float32Array(8), k: new Float32Array(8), v: new Float32Array(8) }),
      ]);
      const untouched = (await out.read()).every((x) => x === 0);
      const tokens = stream.tokens;
      const result = await stream.attend({ q: few, k: few, v: few });
      console.log(JSON.stringify({
        codes: results.map(({ reason }) => reason ? reason.code : 'done'), untouched, tokens, after: stream.tokens, finite: result.every(Number.isFinite),
      }));
    })();
  `,
    [],
    MEMORY,
  );
  expect(ending).toMatchObject(clean);
  expect(JSON.parse(ending.output)).toEqual({
    codes: ['ERR_OUT_OF_MEMORY', 'done'],
    untouched: true,
    tokens: 4,
    after: 8,
    finite: true,
  });
});

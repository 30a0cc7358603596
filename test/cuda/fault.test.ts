import { clean, run } from '../lifecycle/child';
import { emulatedTest } from './only';

/** The n-th kernel or copy of the process fails, and with it whatever comes after on that device. */
const faults = {
  kernel: (n: number) => ({ INFINI_EMULATED_FAULT: String(n) }),
  copy: (n: number) => ({ INFINI_EMULATED_COPY_FAULT: String(n) }),
};

const PROGRAM = `
  (async () => {
    const device = open();
    const config = { heads: 2, headDim: 8, segmentLength: 4 };
    const streams = Array.from({ length: 3 }, () => device.createStream(config));
    const [one, two, three] = streams;
    const tensor = device.tensor([16], 'float32');
    const batch = device.createBatch([one, two]);
    const data = (tokens) => { const x = new Float32Array(16 * tokens).fill(0.25); return { q: x, k: x, v: x }; };
    const errors = [];
    const attempt = async (name, body) => {
      try { await body(); } catch (error) { errors.push([name, error.code, error.message]); }
    };
    for (let i = 0; i < 20 && errors.length === 0; i++) {
      await attempt('attendSync', () => one.attendSync(data(1)));
      await attempt('attend', () => Promise.all(streams.map((stream) => stream.attend(data(6)))));
      await attempt('step', () => batch.step(data(2)));
    }
    const [first] = errors;
    const before = streams.map(({ tokens }) => tokens);
    errors.length = 0;
    const calls = {
      attend: () => three.attend(data(5)),
      attendSync: () => two.attendSync(data(1)),
      retrieve: () => one.retrieve({ q: data(1).q }),
      batch: async () => { for (const { reason } of await device.attendBatch([{ stream: two, ...data(1) }])) throw reason; },
      step: () => batch.step(data(2)),
      stepSync: () => batch.stepSync({ ...data(2), out: new Float32Array(32) }),
      memory: () => one.memory(),
      reset: () => one.reset(),
      fork: () => one.fork(),
      createStream: () => device.createStream(config),
      tensor: () => device.tensor([4], 'float32'),
      write: () => tensor.write(new Float32Array(16)),
      read: () => tensor.read(),
    };
    for (const [name, body] of Object.entries(calls)) await attempt(name, body);
    const wanted = Object.keys(calls);
    const tokens = streams.map(({ tokens }, i) => tokens === before[i]); // a call that failed has not counted
    tensor.close();
    batch.close();
    for (const stream of streams) stream.close();
    device.close();
    const cpu = openDevice('cpu').createStream(config);
    console.log(JSON.stringify({
      first, failed: errors.map(([name]) => name), wanted, codes: [...new Set(errors.map(([, code]) => code))],
      named: errors.every(([, , message]) => message.includes('cudaErrorLaunchFailure')),
      tokens, cpu: cpu.attendSync(data(1)).length,
    }));
  })();
`;

describe.each([
  ...[1, 2, 3, 5, 8, 14].map((n) => ['kernel', n] as const),
  ...[4, 5, 6, 7, 8, 9, 10, 13, 17].map((n) => ['copy', n] as const),
])('when %s %i of a process fails', (what, n) => {
  emulatedTest('every call on the device says so, closing works, and the process lives', async () => {
    const ending = await run(PROGRAM, [], faults[what](n));
    expect(ending).toMatchObject(clean);
    const { first, failed, wanted, ...rest } = JSON.parse(ending.output);
    expect(first[1]).toBe('ERR_DEVICE');
    expect(first[2]).toMatch(/cuda:0.*cudaErrorLaunchFailure/);
    expect(failed).toEqual(wanted);
    expect(rest).toEqual({ codes: ['ERR_DEVICE'], named: true, tokens: [true, true, true], cpu: 16 });
  });
});

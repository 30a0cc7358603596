// What JavaScript sees of a device: whole calls, from the call to its settled result. Prints JSON, one object a line.
//   node bench/gpu/end-to-end.cjs DEVICE [--small]
//
// Prefill: calls of four segments on one stream. Decode: one token for each of 64 streams whose segments are half full,
// as one prepared batch and as attendBatch. A time is printed only when the results are right: the same bits whichever
// way the call was made, and (a smaller stream) what the CPU computes.

const path = require('node:path');
const { openDevice } = require(path.join(__dirname, '../..'));

const [id, size] = process.argv.slice(2);
const small = size === '--small';
const shapes = small
  ? [{ heads: 2, headDim: 16, segmentLength: 16, streams: 4 }]
  : [
      { heads: 32, headDim: 128, segmentLength: 2048, streams: 64 },
      { heads: 8, headDim: 64, segmentLength: 512, streams: 64 },
    ];
const runs = small ? 3 : 100;
const dtype = 'bfloat16';

let state = 1;
function noise(length) {
  return Uint16Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return 0x3f40 + ((state >>> 16) & 0x7f) + (state & 0x8000); // 0.75 to 1.5, either sign
  });
}

const arrays = ({ heads, headDim }, tokens) => {
  const length = tokens * heads * headDim;
  return { q: noise(length), k: noise(length), v: noise(length) };
};

/** The same call with everything on the device, `out` included. */
function deviceTensors(device, shape, input) {
  const tensor = (data) => device.tensor(shape, dtype, data);
  return { q: tensor(input.q), k: tensor(input.k), v: tensor(input.v), out: device.tensor(shape, dtype) };
}

function toFloats(elements) {
  return Float32Array.from(new Float32Array(Uint32Array.from(elements, (bits) => bits << 16).buffer));
}

function mustEqual(what, a, b) {
  if (a.length === b.length && a.every((bits, i) => bits === b[i])) return;
  throw new Error(`${what}: another result than the same call gives by itself`);
}

async function median(body) {
  const times = [];
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    await body();
    times.push((performance.now() - start) * 1000);
  }
  return times.sort((a, b) => a - b)[runs >> 1];
}

/** As `median`, for a body that returns no promise: nothing of the event loop is in the times. */
function medianSync(body) {
  const times = [];
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    body();
    times.push((performance.now() - start) * 1000);
  }
  return times.sort((a, b) => a - b)[runs >> 1];
}

const say = (shape, what, microseconds) => {
  const { heads, headDim, segmentLength, streams } = shape;
  console.log(JSON.stringify({ what, heads, dim: headDim, segment: segmentLength, streams, microseconds }));
};

/** The device and the CPU agree on a small stream to bfloat16's accuracy. */
async function checkAgainstCpu(device) {
  const config = { heads: 2, headDim: 64, segmentLength: 64, dtype };
  const input = arrays(config, 200);
  const cpu = openDevice('cpu');
  const [expected, computed] = await Promise.all(
    [cpu, device].map(async (each) => toFloats(await each.createStream(config).attend(input))),
  );
  const norm = (values) => Math.sqrt(values.reduce((sum, x) => sum + x * x, 0));
  const error = norm(expected.map((x, i) => computed[i] - x)) / norm(expected);
  if (!(error < 1e-2)) throw new Error(`the output is off by ${error} of its norm from the CPU's`);
}

async function prefill(device, shape) {
  const { streams, ...config } = shape;
  const tokens = 4 * shape.segmentLength;
  const input = arrays(shape, tokens);
  const onDevice = deviceTensors(device, [tokens, shape.heads, shape.headDim], input);
  const open = () => device.createStream({ ...config, dtype });

  const first = await open().attend(input);
  const { out: result, ...operands } = onDevice;
  await open().attend(operands, { out: result });
  mustEqual('prefill with device tensors', await result.read(), first);

  const one = { ...shape, streams: 1 };
  const stream = open();
  const out = new Uint16Array(first.length);
  const onHost = () => stream.attend(input, { out });
  say(one, 'prefill of four segments, host arrays', await median(onHost));
  const inPlace = () => stream.attend(operands, { out: result });
  say(one, 'prefill of four segments, device tensors', await median(inPlace));
}

async function decode(device, shape) {
  const { streams: count, ...config } = shape;
  const { heads, headDim, segmentLength } = shape;
  const context = arrays(shape, segmentLength + (segmentLength >> 1));
  const streams = Array.from({ length: count }, () => device.createStream({ ...config, dtype }));
  for (const stream of streams) await stream.attend(context);

  const input = arrays(shape, count);
  const packed = deviceTensors(device, [count, heads, headDim], input);
  const row = (tensor, i) => tensor.subarray(i * heads * headDim, (i + 1) * heads * headDim);
  const entry = (stream, i) => ({ stream, q: row(input.q, i), k: row(input.k, i), v: row(input.v, i) });
  const batch = device.createBatch(streams);

  const alone = await Promise.all(
    streams.map((stream, i) => {
      const { stream: _, ...token } = entry(stream, i);
      return stream.fork().attend(token);
    }),
  );
  const forks = streams.map((stream) => stream.fork());
  const together = await device.attendBatch(forks.map(entry));
  batch.stepSync(packed);
  const stepped = await packed.out.read();
  alone.forEach((expected, i) => {
    mustEqual('a prepared batch', row(stepped, i), expected);
    mustEqual('attendBatch', together[i].value, expected);
  });

  say(
    shape,
    'decode, batch.stepSync, device tensors',
    medianSync(() => batch.stepSync(packed)),
  );
  say(shape, 'decode, batch.step, device tensors', await median(() => batch.step(packed)));
  say(
    shape,
    'decode, batch.stepSync, host arrays',
    medianSync(() => batch.stepSync(input)),
  );
  say(shape, 'decode, attendBatch, host arrays', await median(() => device.attendBatch(streams.map(entry))));
}

async function main() {
  const device = openDevice(id);
  await checkAgainstCpu(device);
  for (const shape of shapes) {
    await prefill(device, shape);
    await decode(device, shape);
  }
  device.close();
}

main();

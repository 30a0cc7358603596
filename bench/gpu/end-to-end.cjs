// What JavaScript sees of a device: whole calls, from the call to its settled result. Prints JSON, one object a line.
//   node bench/gpu/end-to-end.cjs DEVICE [--small]
//
// Prefill: calls of four segments on one stream. Decode: one token for each of 64 streams around the middle of their
// segments (window.cjs), in each way of decode-calls.cjs, every way on streams of its own that start at the same
// token. A time is printed only when the results are right: the same bits whichever way the call was made, and (a
// smaller stream) what the CPU computes.

const path = require('node:path');
const { openDevice } = require(path.join(__dirname, '../..'));
const { decodeCalls } = require('./decode-calls.cjs');
const { dtype, inputsOf, places } = require('./inputs.cjs');
const { windowOf } = require('./window.cjs');

const [id, size] = process.argv.slice(2);
const small = size === '--small';
const shapes = small
  ? [{ heads: 2, headDim: 16, segmentLength: 16, streams: 4 }]
  : [
      { heads: 32, headDim: 128, segmentLength: 2048, streams: 64 },
      { heads: 8, headDim: 64, segmentLength: 512, streams: 64 },
    ];
const runs = small ? 3 : 101;

function toFloats(elements) {
  return Float32Array.from(new Float32Array(Uint32Array.from(elements, (bits) => bits << 16).buffer));
}

function mustEqual(what, a, b) {
  if (a.length === b.length && a.every((bits, i) => bits === b[i])) return;
  throw new Error(`${what}: another result than the same call gives by itself`);
}

/** Median microseconds of a run. Where the body returns no promise, nothing of the event loop is in the times. */
async function median(body, count) {
  const times = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    const result = body();
    if (result instanceof Promise) await result;
    times.push((performance.now() - start) * 1000);
  }
  return times.sort((a, b) => a - b)[count >> 1];
}

/** open: tokens of the open segment, in the mean over what was timed. */
const say = ({ heads, headDim, segmentLength, streams }, what, open, microseconds) => {
  const shape = { heads, dim: headDim, segment: segmentLength, streams, open };
  console.log(JSON.stringify({ what, ...shape, microseconds }));
};

/** The device and the CPU agree on a small stream to bfloat16's accuracy. */
async function checkAgainstCpu(device) {
  const config = { heads: 2, headDim: 64, segmentLength: 64, dtype };
  const input = inputsOf(config, 200);
  const cpu = openDevice('cpu');
  const [expected, computed] = await Promise.all(
    [cpu, device].map(async (each) => toFloats(await each.createStream(config).attend(input))),
  );
  const norm = (values) => Math.sqrt(values.reduce((sum, x) => sum + x * x, 0));
  const error = norm(expected.map((x, i) => computed[i] - x)) / norm(expected);
  if (!(error < 1e-2)) throw new Error(`the output is off by ${error} of its norm from the CPU's`);
}

async function prefill(device, { streams: _, ...config }) {
  const tokens = 4 * config.segmentLength;
  const input = inputsOf(config, tokens);
  const open = () => device.createStream({ ...config, dtype });
  const alone = open();
  const expected = await alone.attend(input);
  alone.close();
  for (const place of ['host arrays', 'device tensors']) {
    const { tensors, read, close } = places[place](device, [tokens, config.heads, config.headDim], input);
    const { out, ...operands } = tensors;
    const stream = open();
    const call = () => stream.attend(operands, { out });
    await call();
    mustEqual(`prefill, ${place}`, await read(), expected);
    say({ ...config, streams: 1 }, `prefill of four segments, ${place}`, 0, await median(call, runs));
    stream.close();
    close();
  }
}

/** The packed outputs of the same token given to each stream alone, so many times. */
async function aloneOutputs(streams, { heads, headDim }, input, times) {
  const width = heads * headDim;
  const outputs = Array.from({ length: times }, () => new Uint16Array(input.q.length));
  for (const [i, stream] of streams.entries()) {
    const fork = stream.fork();
    const row = (array) => array.subarray(i * width, (i + 1) * width);
    for (const packed of outputs) {
      packed.set(await fork.attend({ q: row(input.q), k: row(input.k), v: row(input.v) }), i * width);
    }
    fork.close();
  }
  return outputs;
}

async function decode(device, shape) {
  const { streams: count, ...config } = shape;
  const { before, warm, steps, open } = windowOf(shape.segmentLength, runs);
  const context = inputsOf(shape, shape.segmentLength + before);
  const streams = Array.from({ length: count }, () => device.createStream({ ...config, dtype }));
  for (const stream of streams) await stream.attend(context);
  const input = inputsOf(shape, count);
  const expected = await aloneOutputs(streams, shape, input, warm);

  for (const [what, prepare] of Object.entries(decodeCalls)) {
    const forks = streams.map((stream) => stream.fork());
    const { step, read, close } = prepare(device, forks, shape, input);
    for (const outputs of expected) {
      await step();
      mustEqual(what, await read(), outputs);
    }
    say(shape, `decode, ${what}`, open, await median(step, steps));
    close();
    for (const fork of forks) fork.close();
  }
  for (const stream of streams) stream.close();
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

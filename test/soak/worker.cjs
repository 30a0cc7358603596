// A thread with streams of its own, at work until it is terminated in the middle of it.
const { parentPort, workerData } = require('node:worker_threads');
const { openDevice } = require('../..');

const device = openDevice(workerData.device);
const streams = Array.from({ length: 4 }, (_, i) =>
  device.createStream({ heads: 2, headDim: 8 + 4 * i, segmentLength: 16, rule: i % 2 ? 'delta' : 'linear' }),
);

async function work(stream) {
  const { headDim } = stream.config;
  const few = new Float32Array(2 * headDim).fill(0.25);
  const many = new Float32Array(2 * headDim * workerData.tokens).fill(0.25);
  for (;;) {
    try {
      stream.attendSync({ q: few, k: few, v: few });
      const long = stream.attend({ q: many, k: many, v: many });
      const snapshot = stream.snapshot();
      await Promise.all([long, snapshot, stream.retrieve({ q: many })]);
    } catch (error) {
      if (error.code !== workerData.excused) throw error;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

parentPort.postMessage('at work');
for (const stream of streams) work(stream);

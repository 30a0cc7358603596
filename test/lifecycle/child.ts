import { spawn } from 'node:child_process';
import path from 'node:path';
import { DEVICE_ID } from '../support/device';
import { sizes } from '../support/sizes';

const root = path.join(__dirname, '..', '..');

export interface Ending {
  code: number | null;
  signal: string | null;
  output: string;
  milliseconds: number;
}

/** How a process ends that nothing went wrong in. */
export const clean = { code: 0, signal: null };

const { headDim, segmentLength, tokens } = sizes.busyCallOfChild;

/**
 * Runs a program in a Node process of its own. What it finds there: `open()`, the device; `large()`, a stream with a
 * call of some seconds pending, in arrays or (given a device) in device tensors; `small()`; `worker(body)`.
 */
export function run(program: string, args: string[] = [], env: Record<string, string> = {}): Promise<Ending> {
  const prelude = `
    const { openDevice } = require(${JSON.stringify(root)});
    const { Worker, isMainThread, parentPort } = require('node:worker_threads');
    const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const open = () => openDevice(${JSON.stringify(DEVICE_ID)});
    function large(device) {
      const stream = (device ?? open()).createStream({ heads: 8, headDim: ${headDim}, segmentLength: ${segmentLength} });
      const data = new Float32Array(8 * ${headDim} * ${tokens}).fill(0.1);
      const tensor = device ? device.tensor([${tokens}, 8, ${headDim}], 'float32', data) : data;
      const out = device?.tensor([${tokens}, 8, ${headDim}], 'float32');
      return { stream, tensor, out, pending: stream.attend({ q: tensor, k: tensor, v: tensor }, { out }) };
    }
    function small(tokens = 3, device = open()) {
      const stream = device.createStream({ heads: 2, headDim: 16, segmentLength: 8 });
      const tensor = Float32Array.from({ length: 32 * tokens }, (_, i) => Math.sin(i));
      return { stream, tensor, input: { q: tensor, k: tensor, v: tensor } };
    }
    const worker = (body) => new Worker('const source = ' + JSON.stringify(prelude) + ';' + prelude + body, { eval: true });
  `;
  const source = `const prelude = ${JSON.stringify(prelude)};\n${prelude}\n${program}`;
  const start = Date.now();
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...args, '-e', source], {
      env: { ...process.env, ...env },
      timeout: 60_000,
      killSignal: 'SIGKILL',
    });
    let output = '';
    child.stdout.on('data', (data) => (output += data));
    child.stderr.on('data', (data) => (output += data));
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, output, milliseconds: Date.now() - start }));
  });
}

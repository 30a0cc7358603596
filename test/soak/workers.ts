import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { DEVICE_ID } from '../support/device';

const workers = new Map<Worker, Promise<unknown>>();

/** A thread with streams of its own, which are at work when it is terminated. */
export function startWorker(tokens: number, excused?: string): Promise<unknown> {
  const worker = new Worker(path.join(__dirname, 'worker.cjs'), {
    workerData: { device: DEVICE_ID, tokens, excused },
  });
  const atWork = new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  workers.set(worker, atWork);
  return atWork;
}

/** In the middle of its work. */
export async function terminateWorkers(): Promise<void> {
  for (const [worker, atWork] of workers) {
    await atWork;
    await worker.terminate();
  }
  workers.clear();
}

import { checkSignal } from './abort';
import type { AttendInput } from './calls';
import { checkArray, checkRecord } from './config';
import type { DeviceTensor } from './device-tensor';
import { failed } from './diagnostics';
import { expected, fail } from './errors';
import { checkCall, Job, operandsOf } from './job';
import { native } from './native';
import { type Given, readOperands } from './operands';
import { coreOf, type MemoryStream } from './stream';
import type { StreamCore } from './stream-core';
import type { Tensor } from './types';

/** One call of a flexible batch: `stream.attend({ q, k, v }, { out })`. */
export interface BatchEntry extends AttendInput {
  /** An open stream of the device. */
  stream: MemoryStream;
  /** Takes the result, `[tokens, heads, valueDim]`, as in `attend`'s options. */
  out?: Tensor | DeviceTensor;
}

const mostEntries = 4096;
const entryKeys = new Set(['stream', 'q', 'k', 'v', 'out']);
const optionKeys = new Set(['signal']);

/** A call of attend that can be queued. */
interface Entry {
  readonly core: StreamCore;
  readonly job: Job;
}

/** Device.attendBatch. Everything that user code can interfere with comes first; then all calls are queued at once. */
export function attendBatch(
  device: string,
  entries: unknown,
  options: unknown,
): Promise<PromiseSettledResult<Given>[]> {
  const length = checkArray(entries, 'entries', 0, mostEntries);
  const { signal } = options === undefined ? {} : checkRecord(options, 'options', optionKeys);
  checkSignal(signal);
  const seen = new Set<StreamCore>();
  const made: Entry[] = [];
  const promises = Array.from({ length }, (_, index) => {
    try {
      const entry = readEntry(device, (entries as unknown[])[index], index, signal, seen);
      made.push(entry);
      return entry.job.promise;
    } catch (error) {
      failed(device, 'attend', error);
      return Promise.reject(error);
    }
  });
  submitTogether(made);
  return Promise.allSettled(promises).then((results) => {
    for (const { job } of made) job.release();
    return results;
  });
}

function readEntry(
  device: string,
  entry: unknown,
  index: number,
  signal: unknown,
  seen: Set<StreamCore>,
): Entry {
  const name = `entries[${index}]`;
  const { stream, q, k, v, out } = checkRecord(entry, name, entryKeys);
  const core = coreOf(stream);
  if (!core) throw expected('ERR_INVALID_ARG_TYPE', `${name}.stream`, 'a MemoryStream', stream);
  core.checkDevice(device, name);
  if (seen.has(core)) throw fail('ERR_BUSY', `Expected another stream for "${name}" than in earlier entries`);
  seen.add(core);
  core.checkOpen();
  const call = checkCall(readOperands(`${name}.`, q, k, v, out), signal, core);
  const job = new Job(call, core, core);
  job.held = true;
  return { core, job };
}

/** Queues all of them at once, so that a device that works in rounds begins them in one. Their jobs say how each ends. */
function submitTogether(entries: readonly Entry[]): void {
  const ready = entries.filter(({ job }) => {
    try {
      job.ready();
      return true;
    } catch (error) {
      job.fail(error);
      return false;
    }
  });
  try {
    const outcomes = native.attendMany(
      ready.map(({ core, job }) => [core.native, ...operandsOf(job.call, core.device), job.settle]),
    );
    for (const [i, { job }] of ready.entries()) {
      const outcome = outcomes[i];
      if (typeof outcome === 'number') job.started(outcome);
      else job.fail(outcome);
    }
  } catch (error) {
    for (const { job } of ready) job.fail(error); // no thread could be had: none was queued
  }
}

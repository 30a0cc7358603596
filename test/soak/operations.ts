import { rmSync } from 'node:fs';
import path from 'node:path';
import { loadStream, saveStream, type Tensor } from '../../lib';
import type { Rng } from '../support/rng';
import type { Crowd } from './crowd';
import type { Input, Witness } from './witness';

/** Beyond it a stream begins anew: its calls are to be repeated in the time of a moment. */
const MOST_TOKENS = 300;

const newSeed = ({ rng }: Crowd): number => rng.bits();
const closedOnly = (member: Witness) => () => (member.closed ? ['ERR_CLOSED'] : []);

/** Any stream with room for so many tokens more. */
function roomy(crowd: Crowd, tokens: number): Witness | null {
  const member = crowd.rng.pick(crowd.members);
  if (member.tokens + tokens <= MOST_TOKENS) return member;
  if (member.pending === 0 && crowd.rng.uniform() < 0.5) member.reset();
  else crowd.replace(member, crowd.newcomer());
  crowd.count('begun anew');
  return null;
}

/** A call, possibly aborted at a random moment: at once, soon, or when it is long over. */
function attend(crowd: Crowd): void {
  const { rng } = crowd;
  const tokens = rng.pick([1, 1, 2, rng.int(1, 20), rng.int(1, 100)]);
  const member = roomy(crowd, tokens);
  if (!member) return;
  const seed = newSeed(crowd);
  const controller = new AbortController();
  const { signal } = controller;
  if (rng.uniform() < 0.25) {
    const abort = () => controller.abort();
    rng.pick<() => unknown>([
      () => queueMicrotask(abort),
      () => setImmediate(abort),
      () => setTimeout(abort, rng.int(0, 5)),
    ])();
  }
  const enter = member.enter('attend', seed, tokens);
  const excused = () => [...closedOnly(member)(), ...(signal.aborted ? ['ABORT_ERR'] : [])];
  const call = member.stream.attend(member.input(seed, tokens), { signal });
  crowd.follow('attend', call, enter, () => enter(null), excused);
}

function attendSync(crowd: Crowd): void {
  const tokens = crowd.rng.pick([1, 1, 1, 2, 30]);
  const member = roomy(crowd, tokens);
  if (!member || member.pending > 0) return;
  const seed = newSeed(crowd);
  const output = member.stream.attendSync(member.input(seed, tokens));
  member.enter('attend', seed, tokens)(output);
  crowd.count('attendSync');
}

/** In tensors of the device, which are closed when it is done. */
function attendInTensors(crowd: Crowd): void {
  const tokens = crowd.rng.int(1, 12);
  const member = roomy(crowd, tokens);
  if (!member) return;
  const seed = newSeed(crowd);
  const { device, stream } = member;
  const { heads, kvHeads, headDim, valueDim, dtype } = stream.config;
  const { q, k, v } = member.input(seed, tokens);
  const tensors = {
    q: device.tensor([tokens, heads, headDim], dtype, q),
    k: device.tensor([tokens, kvHeads, headDim], dtype, k),
    v: device.tensor([tokens, kvHeads, valueDim], dtype, v),
  };
  const enter = member.enter('attend', seed, tokens);
  const close = () => {
    for (const tensor of Object.values(tensors)) tensor.close();
  };
  const done = (result: Tensor) => {
    enter(result);
    close();
  };
  const failed = () => {
    enter(null);
    close();
  };
  crowd.follow('attend in tensors', stream.attend(tensors), done, failed, closedOnly(member));
}

function retrieve(crowd: Crowd): void {
  const member = crowd.rng.pick(crowd.members);
  const tokens = crowd.rng.int(1, 10);
  const seed = newSeed(crowd);
  const { q } = member.input(seed, tokens);
  const enter = member.enter('retrieve', seed, tokens);
  crowd.follow('retrieve', member.stream.retrieve({ q }), enter, () => enter(null), closedOnly(member));
}

function attendBatch(crowd: Crowd): void {
  const entries = crowd.some(12, false).map((member) => {
    const [seed, tokens] = [newSeed(crowd), crowd.rng.int(1, 10)];
    const enter = member.enter('attend', seed, tokens);
    return { member, enter, entry: { stream: member.stream, ...member.input(seed, tokens) } };
  });
  const controller = new AbortController();
  if (crowd.rng.uniform() < 0.2) setImmediate(() => controller.abort());
  const batch = entries[0].member.device.attendBatch(
    entries.map(({ entry }) => entry),
    { signal: controller.signal },
  );
  const done = (results: PromiseSettledResult<unknown>[]) => {
    for (const [i, result] of results.entries()) {
      const { member, enter } = entries[i];
      if (result.status === 'fulfilled') {
        enter(result.value as Tensor);
        continue;
      }
      const aborted = controller.signal.aborted ? ['ABORT_ERR'] : [];
      crowd.judge('entry of a batch', result.reason, [...closedOnly(member)(), ...aborted]);
      enter(null);
    }
  };
  crowd.follow(
    'attendBatch',
    batch,
    done,
    () => {},
    () => [],
  );
}

/** Some steps of a prepared batch, which may be closed before they are done. */
function steps(crowd: Crowd): void {
  const members = crowd.some(8, true);
  const batch = members[0].device.createBatch(members.map(({ stream }) => stream));
  const state = { closed: false };
  for (let step = crowd.rng.int(1, 6); step > 0; step--) {
    const seeds = members.map(() => newSeed(crowd));
    const enters = members.map((member, i) => member.enter('attend', seeds[i], 1));
    const rows = members.map((member, i) => member.input(seeds[i], 1));
    const packed = (name: keyof Input) => pack(rows.map((row) => row[name]));
    const done = (output: Tensor) => {
      const width = output.length / members.length;
      for (const [i, enter] of enters.entries()) enter(output.subarray(i * width, (i + 1) * width));
    };
    const failed = () => {
      for (const enter of enters) enter(null);
    };
    const excused = () => (state.closed || members.some(({ closed }) => closed) ? ['ERR_CLOSED'] : []);
    const call = batch.step({ q: packed('q'), k: packed('k'), v: packed('v') });
    crowd.follow('step', call, done, failed, excused);
  }
  const close = () => {
    state.closed = true;
    batch.close();
  };
  crowd.rng.pick([close, () => setImmediate(close), () => {}])();
}

function pack(rows: Tensor[]): Tensor {
  const { length } = rows[0];
  const packed =
    rows[0] instanceof Uint16Array
      ? new Uint16Array(length * rows.length)
      : new Float32Array(length * rows.length);
  for (const [i, row] of rows.entries()) packed.set(row, i * length);
  return packed;
}

function fork(crowd: Crowd): void {
  const member = crowd.rng.pick(crowd.members);
  const other = crowd.rng.pick(crowd.members);
  if (member === other || member.pending > 0) return;
  crowd.replace(other, member.heir(member.stream.fork(), member.device));
  crowd.count('fork');
}

/** Whoever comes back takes some other's place; if its device was closed meanwhile, nobody comes. */
function comeBack(
  crowd: Crowd,
  kind: string,
  revive: (member: Witness, file: () => string) => ReturnType<typeof loadStream>,
): void {
  const member = crowd.rng.pick(crowd.members);
  const { device, history } = member;
  member.pending++; // a snapshot is a call
  const files: string[] = [];
  const file = () => {
    files.push(path.join(folder, `${names++}`));
    return files[0];
  };
  const gone = () => {
    member.pending--;
    for (const each of files) rmSync(each, { force: true });
  };
  const done = (stream: Awaited<ReturnType<typeof loadStream>>) => {
    gone();
    const heir = member.heir(stream, device, history);
    if (stream.closed) heir.closed = true;
    else crowd.replace(crowd.rng.pick(crowd.members), heir);
  };
  const excused = () => (member.closed || !crowd.devices.includes(device) ? ['ERR_CLOSED'] : []);
  crowd.follow(kind, revive(member, file), done, gone, excused);
}
let folder = '';
let names = 0;

/** Where operations keep their files. */
export function useFolder(name: string): void {
  folder = name;
}

const restore = (crowd: Crowd) =>
  comeBack(crowd, 'restore', async ({ stream, device }) => device.restore(await stream.snapshot()));

const load = (crowd: Crowd) =>
  comeBack(crowd, 'load', async ({ stream, device }, file) => {
    const name = file();
    await saveStream(stream, name);
    return loadStream(device, name);
  });

function close(crowd: Crowd): void {
  crowd.replace(crowd.rng.pick(crowd.members), crowd.newcomer());
  crowd.count('close');
}

export interface Operation {
  weight: number;
  name: string;
  run: (crowd: Crowd) => void;
}

export const OPERATIONS: readonly Operation[] = [
  { weight: 40, name: 'attend', run: attend },
  { weight: 15, name: 'attendSync', run: attendSync },
  { weight: 4, name: 'attend in tensors', run: attendInTensors },
  { weight: 10, name: 'retrieve', run: retrieve },
  { weight: 5, name: 'attendBatch', run: attendBatch },
  { weight: 4, name: 'steps', run: steps },
  { weight: 5, name: 'fork', run: fork },
  { weight: 5, name: 'restore', run: restore },
  { weight: 0.5, name: 'load', run: load },
  { weight: 2, name: 'close', run: close },
  { weight: 0.02, name: 'close device', run: (crowd) => crowd.closeDevice() },
];

export function draw(rng: Rng, operations: readonly Operation[]): Operation {
  let dice = rng.uniform(
    0,
    operations.reduce((sum, { weight }) => sum + weight, 0),
  );
  for (const operation of operations) {
    dice -= operation.weight;
    if (dice < 0) return operation;
  }
  return operations[0];
}

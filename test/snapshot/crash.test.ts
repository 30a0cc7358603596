import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Device, loadStream, saveStream } from '../../lib';
import { emulated, openTestDevice } from '../support/device';
import { dataOf, makeInput } from '../support/inputs';
import { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { sizes } from '../support/sizes';

const root = path.join(__dirname, '..', '..');
const STATES = ['a', 'b'];

let device: Device;
let folder: string;
beforeAll(() => {
  device = openTestDevice();
  folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-'));
});
afterAll(() => {
  device.close();
  rmSync(folder, { recursive: true });
});

/** Saves the two states to the same path, again and again, until it is killed; says when it begins to. */
function startSaving(file: string): ChildProcess {
  const program = `
    const { openDevice, loadStream, saveStream } = require(${JSON.stringify(root)});
    (async () => {
      const device = openDevice('cpu', { threads: 1 });
      const states = ${JSON.stringify(STATES.map((name) => path.join(folder, name)))};
      const streams = await Promise.all(states.map((one) => loadStream(device, one)));
      for (let i = 0; ; i++) {
        process.stdout.write('.');
        await saveStream(streams[i % 2], ${JSON.stringify(file)});
      }
    })();
  `;
  return spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
}

/** The process has begun so many saves, or is no more. */
function saves(child: ChildProcess, count: number): Promise<void> {
  let begun = 0;
  return new Promise((resolve) => {
    child.stdout?.on('data', (data: Buffer) => {
      begun += data.length;
      if (begun >= count) resolve();
    });
    child.once('exit', () => resolve());
  });
}

const temporaries = (place: string) => readdirSync(place).filter((name) => name.endsWith('.tmp'));

interface Tally {
  /** Kills after which the file held the one state or the other, or was not there yet; and those in mid-save. */
  a: number;
  b: number;
  none: number;
  middle: number;
}

/** One path, to which one process after another saves and is killed, at moments of `rng`'s. A save takes some `milliseconds`. */
async function killAgainAndAgain(
  kills: number,
  lane: string,
  states: Buffer[],
  milliseconds: number,
  rng: Rng,
): Promise<Tally> {
  const file = path.join(lane, 'state');
  const tally = { a: 0, b: 0, none: 0, middle: 0 };
  for (let kill = 0; kill < kills; kill++) {
    const child = startSaving(file);
    const exited = once(child, 'exit');
    const early = kill % 8 === 0; // while it starts, sweeps and saves for the first time
    if (!early) await saves(child, rng.int(1, 3));
    await sleep(rng.uniform(0, early ? 150 : milliseconds));
    child.kill('SIGKILL');
    expect(await exited).toEqual([null, 'SIGKILL']);

    const left = temporaries(lane).length;
    expect(left).toBeLessThanOrEqual(1); // each sweeps before it writes
    tally.middle += left;
    if (!existsSync(file)) {
      expect(tally.a + tally.b).toBe(0);
      tally.none++;
      continue;
    }
    const bytes = readFileSync(file);
    const state = states.findIndex((one) => one.equals(bytes));
    if (state < 0) throw new Error(`a file of ${bytes.length} bytes is neither state`);
    using stream = await loadStream(device, file);
    expect(states[state].equals(await stream.snapshot())).toBe(true);
    tally[state === 0 ? 'a' : 'b']++;
  }
  return tally;
}

seededTest(
  'whenever a process is killed, the file is the state before or the state after, in full',
  async (rng) => {
    const states: Buffer[] = [];
    let milliseconds = 0;
    for (const [i, name] of STATES.entries()) {
      using stream = device.createStream({ heads: 8, headDim: 64, segmentLength: 256, dtype: 'float16' });
      stream.attendSync(dataOf(makeInput(stream.config, [3, 70][i], new Rng(i))));
      const start = performance.now();
      await saveStream(stream, path.join(folder, name));
      milliseconds = performance.now() - start;
      states.push(readFileSync(path.join(folder, name)));
    }
    expect(states[0].equals(states[1])).toBe(false);

    const seeds = [rng.bits(), rng.bits()];
    const lanes = seeds.map(() => mkdtempSync(path.join(folder, 'lane-')));
    const tallies = await Promise.all(
      seeds.map((seed, i) =>
        killAgainAndAgain(sizes.kills / 2, lanes[i], states, milliseconds, new Rng(seed)),
      ),
    );
    const sum = (key: keyof Tally) => tallies.reduce((total, tally) => total + tally[key], 0);
    expect(sum('a') + sum('b') + sum('none')).toBe(sizes.kills);
    expect(Math.min(sum('a'), sum('b'))).toBeGreaterThan(0);
    if (!emulated) expect(sum('middle')).toBeGreaterThan(0); // fewer kills there

    // The next save of anyone removes what the last of them has left.
    for (const lane of lanes) {
      using stream = await loadStream(device, path.join(folder, 'a'));
      await saveStream(stream, path.join(lane, 'state'));
      expect(readdirSync(lane)).toEqual(['state']);
    }
  },
  300_000,
);

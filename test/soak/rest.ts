import { inspect } from 'node:util';
import type { Crowd } from './crowd';
import { terminateWorkers } from './workers';

export const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Waits until nothing is under way. Then a share of the streams must be what their calls make of them, and nothing else be there. */
export async function rest(crowd: Crowd, share: number): Promise<void> {
  await crowd.settle();
  await terminateWorkers();
  for (const member of crowd.members) {
    if (!member.settled) throw new Error(`a call was lost: ${member.describe()}`);
    if (crowd.rng.uniform() < share) {
      await member.verify();
      crowd.count('verified');
    }
  }
  await expectNothingKept(crowd);
}

/** What was forgotten is collected, what was closed is gone: only the members are left, and no call. */
async function expectNothingKept(crowd: Crowd): Promise<void> {
  const wanted = {
    streams: crowd.members.length,
    streamBytes: crowd.members.reduce((sum, { stream }) => sum + stream.byteLength, 0),
    stagingBytes: 0,
    tensorBytes: 0,
    pendingCalls: 0,
  };
  for (let patience = 200; ; patience--) {
    globalThis.gc?.();
    for (let i = 0; i < 5; i++) await turn();
    const stats = crowd.devices[0].stats();
    const kept = (Object.keys(wanted) as (keyof typeof wanted)[]).filter((key) => stats[key] !== wanted[key]);
    if (kept.length === 0) return;
    if (patience === 0) throw new Error(`${kept} are kept: ${inspect(stats)} instead of ${inspect(wanted)}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

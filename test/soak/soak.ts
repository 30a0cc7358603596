// Random calls on many streams for a long time, every one of them kept, and repeated against the oracle of witness.ts.
//   node --expose-gc -r ../fuzz/register.cjs soak.ts SEED SECONDS LOG STREAMS
import { emulated } from '../support/device';
import { Rng } from '../support/rng';
import { Crowd } from './crowd';
import { OPERATIONS } from './operations';
import { Program } from './program';
import { expectFlat, type Sample, sample } from './resources';
import { rest, turn } from './rest';
import { startWorker } from './workers';

const MOST_PENDING = 60;
/** So often, in operations and in times in all, everything comes to rest and is looked at. */
const ROUND = emulated ? 40 : 2000;
const LEAST_ROUNDS = 6;

async function soak(): Promise<void> {
  const program = new Program();
  const [streams] = program.more;
  const crowd = new Crowd(new Rng(program.seed), streams);
  const samples: Sample[] = [];
  while (!program.timeIsUp || samples.length < LEAST_ROUNDS) {
    program.perform(crowd, OPERATIONS);
    if (program.operations % (ROUND / 4) === 0) {
      startWorker(emulated ? 20 : 300);
      crowd.count('terminated workers');
    }
    if (crowd.pending > MOST_PENDING) await crowd.settle();
    else if (crowd.rng.uniform() < 0.2) await turn();
    if (program.operations % ROUND > 0) continue;
    await rest(crowd, 0.2);
    samples.push(sample());
  }
  await rest(crowd, 1);
  const growth = expectFlat(samples, process.env.INFINI_STREAM_SANITIZED !== undefined);
  program.finish(crowd, { rounds: samples.length, growth, last: samples[samples.length - 1] });
}

soak();

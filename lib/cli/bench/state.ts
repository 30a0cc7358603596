import type { Device } from '../../index';
import { median } from '../format';
import type { Case, Contender, Run } from './contender';
import { makeInput, open, slice } from './input';
import { appendSegment, checkExact } from './verify';
import { cut } from './work';

/** Of one run: their median keeps what else the machine does out of a difference. */
const SEGMENTS = 9;
/** What a clock read twice can tell from nothing, in seconds. */
const LEAST = 1e-7;

/**
 * A segment's absorption has no call of its own: it is what the token that fills a segment takes longer than the token
 * before it, both through `attendSync`. All tokens before these two go in by `attend`, untimed.
 */
export async function enterState(device: Device, one: Case): Promise<Contender> {
  const { segment } = one;
  if (segment < 2) throw new Error('a segment of one token has no token before the one that fills it');
  const stream = open(device, one);
  const length = Math.min(cut(one).tokens, segment);
  const input = makeInput(one, length);
  await appendSegment(stream, one, input);
  const about = { error: await checkExact(stream, one, input), bytes: stream.byteLength };
  const token = slice(input, one, 0, 1);
  const result = token.q.slice();
  const secondsOfToken = () => {
    const start = process.hrtime.bigint();
    stream.attendSync(token, { out: result });
    return Number(process.hrtime.bigint() - start) / 1e9;
  };
  const out = input.q.slice();
  const widthOf = one.heads * one.headDim;
  const absorb = async (): Promise<number> => {
    for (let done = 0; done < segment - 2; ) {
      const tokens = Math.min(length, segment - 2 - done);
      await stream.attend(slice(input, one, 0, tokens), { out: out.subarray(0, tokens * widthOf) });
      done += tokens;
    }
    const before = secondsOfToken();
    return secondsOfToken() - before;
  };
  const run = async (): Promise<Run> => {
    const start = performance.now();
    const seconds: number[] = [];
    while (seconds.length < SEGMENTS) seconds.push(await absorb());
    const elapsed = (performance.now() - start) / 1000;
    return { seconds: SEGMENTS * Math.max(LEAST, median(seconds)), tokens: SEGMENTS * segment, elapsed };
  };
  return { name: 'infini-stream', about, run, close: () => stream.close() };
}

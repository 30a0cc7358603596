import { openDevice, type ScheduledAttendInput, StreamScheduler } from '../../lib';

const { inWords, measure, readOptions } = require('../../bench/serving.cjs');
const { checkSame } = require('../../bench/serving-load.cjs');

const small = [
  '--streams',
  '1,2',
  '--seconds',
  '0.05',
  '--rounds',
  '1',
  '--prefill',
  '64',
  '--device',
  'cpu',
];
const options = () =>
  readOptions([...small, '--heads', '1', '--head-dim', '4', '--segment', '16', '--batch', '32']);

test('it measures every case, and says so in words', async () => {
  const report = await measure(options(), { openDevice, StreamScheduler });
  expect(report.latency.map(({ streams, prefill }: never) => [streams, prefill])).toEqual([
    [1, false],
    [1, true],
    [2, false],
    [2, true],
  ]);
  for (const { milliseconds, tokensPerSecond } of report.latency) {
    const { p50, p99, most } = milliseconds;
    expect(0 < p50 && p50 <= p99 && p99 <= most && tokensPerSecond > 0).toBe(true);
  }
  expect(report.throughput.map(({ work, streams }: never) => [work, streams])).toEqual([
    ['prefill', 1],
    ['prefill', 2],
    ['one token', 1],
    ['one token', 2],
  ]);
  for (const { ratio, unscheduledTokensPerSecond } of report.throughput)
    expect(ratio > 0 && unscheduledTokensPerSecond > 0).toBe(true);
  expect(inWords(report).split('\n')).toHaveLength(2 + 5 + 2 + 4);
});

test('it gives no time when a result is not that of the stream alone', async () => {
  /** Adds a token of its own to a stream. */
  class Wrong extends StreamScheduler {
    override createStream(...args: Parameters<StreamScheduler['createStream']>) {
      const stream = super.createStream(...args);
      const { attend } = stream;
      let calls = 0;
      stream.attend = (input: ScheduledAttendInput, given) => {
        if (calls++ === 2) attend.call(stream, input);
        return attend.call(stream, input, given);
      };
      return stream;
    }
  }
  await expect(measure(options(), { openDevice, StreamScheduler: Wrong })).rejects.toThrow(
    /not the result of the stream alone/,
  );
});

test('outputs are the same bytes on the CPU, and nearly the same numbers on a GPU', () => {
  const check = (found: number[], wanted: number[], exact: boolean) => () =>
    checkSame(Float32Array.from(found), Float32Array.from(wanted), 'x', { exact, dtype: 'float32' });
  expect(check([1, 2], [1, 2], true)).not.toThrow();
  expect(check([1, 2], [1, 2.0001], true)).toThrow();
  expect(check([1, 2], [1, 2.0001], false)).not.toThrow();
  expect(check([1, 2], [1, 2.1], false)).toThrow();
  expect(check([1, Number.NaN], [1, 2], false)).toThrow();
});

test('wrong options are refused', () => {
  for (const args of [
    ['--streams', '0'],
    ['--streams', 'x'],
    ['--seconds', '-1'],
    ['--rounds', 'x'],
    ['--what'],
  ])
    expect(() => readOptions(args)).toThrow();
});

import { readRecord } from '../config';
import { expected } from '../errors';

export interface SchedulerOptions {
  /**
   * Tokens of short requests (16 tokens or fewer) that are at work at once, and again as many of long ones. A piece of
   * a long request is at most half of it. Default: 1024.
   */
  maxBatchTokens?: number;
  /** Open streams, wherever they are. Default: 4096. */
  maxStreams?: number;
  /** Requests that wait for their turn. Default: 1024. */
  maxQueue?: number;
  /** Bytes of the inputs of all requests that have not settled. Default: 2 ** 30. */
  maxQueueBytes?: number;
  /**
   * When `maxQueue` requests wait: 'reject' refuses more (ERR_BUSY); 'wait' lets each stream have one that waits to be
   * queued, in the order of the calls, and refuses that stream's next one meanwhile. Default: 'wait'.
   */
  whenFull?: 'wait' | 'reject';
  /** For the states of streams on the device. Default: what the device will give. */
  deviceBytes?: number;
  /** For the states of streams in host memory; 0 keeps all streams on the device. Default: what the machine will give. */
  hostBytes?: number;
}

export type Limits = Required<SchedulerOptions>;

const defaults: Limits = {
  maxBatchTokens: 1024,
  maxStreams: 4096,
  maxQueue: 1024,
  maxQueueBytes: 2 ** 30,
  whenFull: 'wait',
  deviceBytes: Number.POSITIVE_INFINITY,
  hostBytes: Number.POSITIVE_INFINITY,
};
const keys = new Set(Object.keys(defaults));

export function readLimits(options: unknown): Readonly<Limits> {
  const given = readRecord(options, 'options', keys);
  const whole = (key: keyof SchedulerOptions, least: number): number => {
    const value = given[key] === undefined ? defaults[key] : given[key];
    const name = `options.${key}`;
    if (typeof value !== 'number') throw expected('ERR_INVALID_ARG_TYPE', name, 'a number', value);
    const unlimited = value === Number.POSITIVE_INFINITY && key.endsWith('Bytes');
    if (unlimited || (Number.isSafeInteger(value) && value >= least)) return value;
    throw expected('ERR_OUT_OF_RANGE', name, `an integer of at least ${least}`, value);
  };
  return Object.freeze({
    maxBatchTokens: whole('maxBatchTokens', 1),
    maxStreams: whole('maxStreams', 1),
    maxQueue: whole('maxQueue', 1),
    maxQueueBytes: whole('maxQueueBytes', 1),
    whenFull: readWhenFull(given.whenFull),
    deviceBytes: whole('deviceBytes', 1),
    hostBytes: whole('hostBytes', 0),
  });
}

function readWhenFull(value: unknown = defaults.whenFull): Limits['whenFull'] {
  if (typeof value !== 'string')
    throw expected('ERR_INVALID_ARG_TYPE', 'options.whenFull', 'a string', value);
  if (value === 'wait' || value === 'reject') return value;
  throw expected('ERR_OUT_OF_RANGE', 'options.whenFull', "'wait' or 'reject'", value);
}

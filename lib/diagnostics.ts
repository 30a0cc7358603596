// What happens, for whoever subscribes with node:diagnostics_channel. Without subscribers it costs a look at three flags.
import { channel } from 'node:diagnostics_channel';
import { performance } from 'node:perf_hooks';
import type { ErrorCode, InfiniError } from './errors';

/**
 * `infini-stream:attend`: an `attend`, `attendSync` or step of a batch has taken effect, or a model's sessions have taken a
 * chunk of what they are fed, or a token each that they generate. A session counts once, not once per layer.
 */
export interface AttendEvent {
  /** The device's id. */
  device: string;
  /** Appended; by a batch, to all its streams or sessions together. */
  tokens: number;
  /** From the call to its result: waiting for its turn counts. */
  milliseconds: number;
}

/** `infini-stream:absorb`: that call filled segments, which are in the memory now. */
export interface AbsorbEvent {
  device: string;
  segments: number;
  /** Of the call that absorbed them. */
  milliseconds: number;
}

/** `infini-stream:swap`: a scheduler has moved a stream off its device, or back. */
export interface SwapEvent {
  device: string;
  direction: 'out' | 'in';
  /** Of the state, as it lies in host memory. */
  bytes: number;
  /** The stream's. */
  tokens: number;
  milliseconds: number;
}

/** `infini-stream:error`: a call on a stream or on sessions was refused, has failed or was aborted. Published after the call has rejected or thrown. */
export interface ErrorEvent {
  device: string;
  /** 'feed' and 'generate' are of sessions. */
  operation: 'attend' | 'retrieve' | 'swap' | 'feed' | 'generate';
  code: ErrorCode;
  error: InfiniError;
}

const attends = channel('infini-stream:attend');
const absorbs = channel('infini-stream:absorb');
const swaps = channel('infini-stream:swap');
const errors = channel('infini-stream:error');

/** When a call begins; 0 when nobody will ask. */
export const begin = (): number =>
  attends.hasSubscribers || absorbs.hasSubscribers || swaps.hasSubscribers ? performance.now() : 0;

/** Of a call that began when somebody was listening. */
export function attended(device: string, began: number, tokens: number, segments: number): void {
  if (began === 0) return;
  const milliseconds = performance.now() - began;
  if (attends.hasSubscribers) attends.publish({ device, tokens, milliseconds } satisfies AttendEvent);
  if (segments > 0 && absorbs.hasSubscribers)
    absorbs.publish({ device, segments, milliseconds } satisfies AbsorbEvent);
}

export function swapped(
  device: string,
  began: number,
  direction: SwapEvent['direction'],
  bytes: number,
  tokens: number,
): void {
  if (began === 0 || !swaps.hasSubscribers) return;
  const milliseconds = performance.now() - began;
  swaps.publish({ device, direction, bytes, tokens, milliseconds } satisfies SwapEvent);
}

/** Not at once: subscribers are user code, and what has failed may be one of several things that belong together. */
export function failed(device: string, operation: ErrorEvent['operation'], thrown: unknown): void {
  if (!errors.hasSubscribers) return;
  const error = thrown as InfiniError;
  queueMicrotask(() => errors.publish({ device, operation, code: error?.code, error } satisfies ErrorEvent));
}

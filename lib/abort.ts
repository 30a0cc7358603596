import { expected } from './errors';
import { native } from './native';

// The platform's own getters and methods: they refuse anything that is not the real thing, and a user's overrides
// are not called.
const getter = <T>(name: 'aborted' | 'reason') =>
  Object.getOwnPropertyDescriptor(AbortSignal.prototype, name)?.get as (this: AbortSignal) => T;
const aborted = getter<boolean>('aborted');
const { addEventListener, removeEventListener } = EventTarget.prototype;
const reason = getter<unknown>('reason');

export const isAborted = (signal: AbortSignal): boolean => aborted.call(signal);
export const reasonOf = (signal: AbortSignal | undefined): unknown => signal && reason.call(signal);

export function checkSignal(signal: unknown): AbortSignal | undefined {
  if (signal === undefined) return undefined;
  try {
    aborted.call(signal as AbortSignal);
    removeEventListener.call(signal as AbortSignal, 'abort', () => {}); // an heir of a signal passes the line above
  } catch {
    throw expected('ERR_INVALID_ARG_TYPE', 'options.signal', 'an AbortSignal', signal);
  }
  return signal as AbortSignal;
}

/** A call that a signal can cut off; its ticket is 0 until it is queued. `interrupt` is for what is not native. */
export interface Abortable {
  readonly ticket: number;
  interrupt?(): void;
}

interface Watch {
  readonly calls: Set<Abortable>;
  readonly stop: () => void;
}
const watches = new WeakMap<AbortSignal, Watch>();

/**
 * Cancels the call when the signal fires; returns the function that stops watching. One event listener per signal,
 * however many calls share it, because Node warns of a leak beyond ten; and one cancellation, so that no call begins
 * when those before it are gone.
 */
export function watchAbort(signal: AbortSignal, call: Abortable): () => void {
  let watch = watches.get(signal);
  if (!watch) {
    const calls = new Set<Abortable>();
    const fire = () => {
      watches.delete(signal);
      native.cancel(Array.from(calls, ({ ticket }) => ticket));
      for (const call of calls) call.interrupt?.();
    };
    addEventListener.call(signal, 'abort', fire, { once: true });
    const stop = () => {
      try {
        removeEventListener.call(signal, 'abort', fire);
      } catch {
        // Node reads the signal's constructor, which may be a trap. The call has its outcome.
      }
    };
    watch = { calls, stop };
    watches.set(signal, watch);
  }
  const { calls, stop } = watch;
  calls.add(call);
  return () => {
    calls.delete(call);
    if (calls.size > 0 || watches.get(signal)?.calls !== calls) return;
    watches.delete(signal);
    stop();
  };
}

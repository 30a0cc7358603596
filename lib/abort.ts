import { expected } from './errors';

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

type Listener = () => void;

const watched = new WeakMap<AbortSignal, { listeners: Set<Listener>; stop: Listener }>();

/**
 * Calls `listener` when the signal fires; returns the function that stops watching. One event listener per signal,
 * however many calls share it: Node warns of a leak beyond ten.
 */
export function watchAbort(signal: AbortSignal, listener: Listener): Listener {
  let entry = watched.get(signal);
  if (!entry) {
    const listeners = new Set<Listener>();
    const fire = () => {
      watched.delete(signal);
      for (const one of listeners) one();
    };
    addEventListener.call(signal, 'abort', fire, { once: true });
    const stop = () => {
      try {
        removeEventListener.call(signal, 'abort', fire);
      } catch {
        // Node reads the signal's constructor, which may be a trap. The call has its outcome.
      }
    };
    entry = { listeners, stop };
    watched.set(signal, entry);
  }
  const { listeners, stop } = entry;
  listeners.add(listener);
  return () => {
    listeners.delete(listener);
    if (listeners.size > 0 || watched.get(signal)?.listeners !== listeners) return;
    watched.delete(signal);
    stop();
  };
}

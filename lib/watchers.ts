import type { NativeDevice } from './native';

/** Who wants to know when something is closed. */
export type Watchers = Set<() => void>;

const ofDevices = new WeakMap<NativeDevice, Watchers>();

export function watchersOf(device: NativeDevice): Watchers {
  let watchers = ofDevices.get(device);
  if (!watchers) {
    watchers = new Set();
    ofDevices.set(device, watchers);
  }
  return watchers;
}

export function tell(watchers: Watchers): void {
  for (const watcher of [...watchers]) watcher();
}

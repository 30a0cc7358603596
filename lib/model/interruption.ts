import { isAborted, reasonOf, watchAbort } from '../abort';
import { abortError, fail } from '../errors';
import type { SessionCore } from './session-core';

/**
 * What ends the waiting of a call: its signal, or a session, its model or its device that is closed. Also while a call
 * waits for those before it, or for a source that has nothing to give.
 */
export class Interruption {
  #reason: Error | undefined;
  #wake: ((reason: Error) => void) | undefined;
  readonly #release: (() => void)[] = [];

  constructor(sessions: readonly SessionCore[], signal: AbortSignal | undefined) {
    const abort = () => this.#interrupt(abortError(reasonOf(signal)));
    const close = () =>
      this.#interrupt(fail('ERR_CLOSED', 'Expected an open session but it was closed during the call'));
    for (const watchers of new Set(sessions.flatMap((session) => session.closers))) {
      watchers.add(close);
      this.#release.push(() => watchers.delete(close));
    }
    if (signal) this.#release.push(watchAbort(signal, { ticket: 0, interrupt: abort }));
    if (signal && isAborted(signal)) abort();
    if (sessions.some((session) => session.isClosed)) close();
  }

  #interrupt(reason: Error): void {
    this.#reason ??= reason;
    this.#wake?.(reason);
  }

  /** The promise's outcome, or the interruption if that comes first. One at a time. */
  async wait<T>(promise: Promise<T>): Promise<T> {
    try {
      return await new Promise<T>((resolve, reject) => {
        this.#wake = reject;
        if (this.#reason) reject(this.#reason);
        promise.then(resolve, reject);
      });
    } finally {
      this.#wake = undefined;
    }
  }

  release(): void {
    for (const release of this.#release) release();
  }
}

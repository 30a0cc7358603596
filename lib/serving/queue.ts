import { fail } from '../errors';
import type { Limits } from './options';
import type { Request } from './request';

/** Who may wait: a bounded number of requests, and outside at most one more for each stream. */
export class Queue {
  /** Requests that are queued and have not had their first turn. */
  waiting = 0;
  /** Of the inputs of all requests that have not settled, outside or in. */
  bytes = 0;
  /** In the order of their calls. */
  readonly outside = new Set<Request>();

  constructor(
    readonly limits: Limits,
    readonly admitted: (request: Request) => void,
  ) {}

  /** Before anything is copied. */
  check(bytes: number, { outside }: { outside: Request | undefined }): void {
    const { maxQueue, maxQueueBytes, whenFull } = this.limits;
    if (this.bytes + bytes > maxQueueBytes) {
      throw fail(
        'ERR_BUSY',
        `Expected inputs of at most maxQueueBytes (${maxQueueBytes}) in all but ${this.bytes} bytes are held and received ${bytes} more`,
      );
    }
    if (this.#hasRoom) return;
    if (whenFull === 'reject')
      throw fail(
        'ERR_BUSY',
        `Expected fewer than maxQueue (${maxQueue}) waiting requests but the queue is full`,
      );
    if (outside)
      throw fail(
        'ERR_BUSY',
        'Expected one request of a stream outside the full queue but there is one already',
      );
  }

  enter(request: Request): void {
    this.bytes += request.bytes;
    if (this.#hasRoom) {
      this.#admit(request);
    } else {
      request.member.outside = request;
      this.outside.add(request);
    }
  }

  /** It has its first turn, or left before that. */
  left(request: Request): void {
    if (this.outside.delete(request)) {
      request.member.outside = undefined;
      return;
    }
    this.waiting--;
    for (const next of this.outside) {
      if (!this.#hasRoom) return;
      this.outside.delete(next);
      next.member.outside = undefined;
      this.#admit(next);
    }
  }

  settled(request: Request): void {
    this.bytes -= request.bytes;
  }

  get #hasRoom(): boolean {
    return this.waiting < this.limits.maxQueue;
  }

  #admit(request: Request): void {
    this.waiting++;
    this.admitted(request);
  }
}

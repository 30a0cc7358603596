import type { NativeMemory } from './native';

/** Some of its bytes. */
export interface Span {
  readonly begin: number;
  readonly end: number;
}

/** Where a tensor lies. */
export interface Placement extends Span {
  readonly memory: SharedMemory;
}

/**
 * Memory that JavaScript shares with pending calls, and which of its bytes they lease: any number may read, or one may
 * write. What JavaScript must not do meanwhile is refused here, where it can be seen; the memory itself stays until
 * the last call has let go of it, whatever JavaScript does.
 */
export class SharedMemory {
  readonly #reads = new Set<Span>();
  readonly #writes = new Set<Span>();

  constructor(
    readonly native: NativeMemory,
    /** The device's id: whoever opened it, a device has one engine. */
    readonly device: string,
  ) {}

  /** A call writes there: it must not be read. */
  isWritten(span: Span): boolean {
    return overlaps(this.#writes, span);
  }

  /** A call reads or writes there: it must not be written. */
  isUsed(span: Span): boolean {
    return overlaps(this.#writes, span) || overlaps(this.#reads, span);
  }

  /** Leases the span for a call that reads there, until the returned function is called. */
  read(span: Span): () => void {
    return lease(this.#reads, span);
  }

  /** And for a call that writes there. */
  write(span: Span): () => void {
    return lease(this.#writes, span);
  }
}

function lease(leases: Set<Span>, { begin, end }: Span): () => void {
  const span = { begin, end }; // its own, for the same bytes may be leased twice
  leases.add(span);
  return () => leases.delete(span);
}

function overlaps(leases: Set<Span>, { begin, end }: Span): boolean {
  for (const lease of leases) if (lease.begin < end && begin < lease.end) return true;
  return false;
}

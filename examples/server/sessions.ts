import { randomUUID } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import type { Model, Session } from 'infini-stream';
import { ServiceError } from './errors';
import { Journal, syncFolder } from './journal';
import { recoverAll } from './recovery';
import { filesOf, LiveStream, type StreamLimits } from './stream';

export interface Limits extends StreamLimits {
  streams: number;
  streamsPerUser: number;
}

/** Every stream of every user. */
export class Sessions {
  readonly #streams = new Map<string, LiveStream>();
  /** By user, streams that are being made included. */
  readonly #counts = new Map<string, number>();

  private constructor(
    readonly model: Model,
    readonly data: string,
    readonly limits: Limits,
  ) {}

  static async open(model: Model, data: string, limits: Limits): Promise<Sessions> {
    const sessions = new Sessions(model, data, limits);
    for (const stream of await recoverAll(model, data, limits)) sessions.#add(stream);
    return sessions;
  }

  get size(): number {
    return this.#streams.size;
  }

  /** An empty stream, durable. */
  async create(user: string): Promise<LiveStream> {
    const { streams, streamsPerUser } = this.limits;
    if (this.#countOf(user) >= streamsPerUser)
      throw new ServiceError('ERR_LIMIT', 429, `Expected at most ${streamsPerUser} streams of a user`);
    const all = [...this.#counts.values()].reduce((sum, count) => sum + count, 0);
    if (all >= streams) throw new ServiceError('ERR_LIMIT', 503, `Expected at most ${streams} streams`);
    this.#count(user, 1);
    const id = randomUUID();
    const folder = path.join(this.data, user);
    const { log } = filesOf(folder, id);
    let session: Session | undefined;
    let journal: Journal | undefined;
    try {
      session = this.model.createSession();
      await mkdir(folder, { recursive: true });
      journal = await Journal.create(log);
      await syncFolder(folder);
      await syncFolder(this.data);
      const stream = new LiveStream(id, user, folder, session, journal, this.limits, 0);
      this.#streams.set(id, stream);
      return stream;
    } catch (error) {
      this.#count(user, -1);
      session?.close();
      await journal?.close();
      await rm(log, { force: true }).catch(() => {}); // else it would be a stream at the next start
      throw error;
    }
  }

  /** Another user's stream is none. */
  get(user: string, id: string): LiveStream {
    const stream = this.#streams.get(id);
    if (stream?.user === user) return stream;
    throw new ServiceError('ERR_NO_STREAM', 404, 'Expected the id of a stream of this user');
  }

  async remove(user: string, id: string): Promise<void> {
    const stream = this.get(user, id);
    this.#streams.delete(id);
    try {
      await stream.remove();
    } finally {
      this.#count(user, -1);
    }
  }

  /** Saves and closes all. */
  async close(): Promise<void> {
    const left = this.#streams.values();
    const saveSome = async () => {
      for (const stream of left) {
        // Without a new snapshot the next start has the last one and the log.
        await stream.save().catch((error: unknown) => console.error(`stream ${stream.id}:`, error));
        await stream.close();
      }
    };
    await Promise.all(Array.from({ length: 16 }, saveSome)); // one waits for the disk while others work
    this.#streams.clear();
  }

  #add(stream: LiveStream): void {
    this.#streams.set(stream.id, stream);
    this.#count(stream.user, 1);
  }

  #countOf(user: string): number {
    return this.#counts.get(user) ?? 0;
  }

  #count(user: string, change: number): void {
    const count = this.#countOf(user) + change;
    if (count > 0) this.#counts.set(user, count);
    else this.#counts.delete(user);
  }
}

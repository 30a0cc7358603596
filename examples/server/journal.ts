import { type FileHandle, open } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { unavailable } from './errors';

/** Tokens that a stream took: those from this position on, the stream's first being at 0. */
export interface Entry {
  readonly position: number;
  readonly tokens: Int32Array;
}

// An entry in the file: the bytes of its body and their CRC-32, 4 bytes each; the body: the position in 8 bytes, and each
// token in 4. All little-endian.
const HEAD = 8;
const LEAST_BODY = 8 + 4;

/** By all logs of this process: one write and one fsync per group. */
export const written = { groups: 0, entries: 0 };

/**
 * The log of one stream. What was appended is on the disk when the promise resolves. Entries that come while the disk is
 * at work wait for it together and share the next write and the next fsync: group commit.
 *
 * After a write that has failed nobody knows what the file holds: then the journal takes nothing any more, and the next
 * start finds out.
 */
export class Journal {
  readonly #file: FileHandle;
  /** The end of the last write that was asked for. */
  #tail: Promise<void> = Promise.resolve();
  /** What the next write will take. */
  #group: { frames: Buffer[]; done: Promise<void> } | undefined;
  /** Why it takes nothing any more. */
  failure: Error | undefined;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  /** A new log, which must not be there yet. Whoever calls makes its name durable (`syncFolder`). */
  static async create(path: string): Promise<Journal> {
    return new Journal(await open(path, 'ax'));
  }

  /**
   * An old log and its entries, up to the first that is not whole. As a rule a process or a machine died there while it
   * wrote, and nothing from there on was acknowledged; but a disk that has lost a bit looks the same. So the rest, `cut`
   * bytes, goes to a file of its own (`.cut-TIME`) for somebody to look at.
   */
  static async open(path: string): Promise<{ journal: Journal; entries: Entry[]; cut: number }> {
    const file = await open(path, 'a+');
    try {
      const bytes = await file.readFile();
      const { entries, end } = decode(bytes);
      if (end < bytes.length) {
        await keep(`${path}.cut-${Date.now()}`, bytes.subarray(end));
        await file.truncate(end);
        await file.datasync();
      }
      return { journal: new Journal(file), entries, cut: bytes.length - end };
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  append(entry: Entry): Promise<void> {
    this.#group ??= this.#begin();
    this.#group.frames.push(encode(entry));
    return this.#group.done;
  }

  #begin() {
    const frames: Buffer[] = [];
    const done = this.#then(async () => {
      this.#group = undefined; // whoever comes now waits for the next
      await this.#file.appendFile(Buffer.concat(frames));
      await this.#file.datasync();
      written.groups++;
      written.entries += frames.length;
    });
    return { frames, done };
  }

  /** Forgets everything appended so far: a snapshot holds it. */
  clear(): Promise<void> {
    this.#group = undefined;
    return this.#then(async () => {
      await this.#file.truncate(0);
      await this.#file.datasync();
    });
  }

  #then(work: () => Promise<void>): Promise<void> {
    this.#tail = this.#tail.then(work).catch((cause: unknown) => {
      this.failure ??= unavailable(
        'ERR_JOURNAL',
        'Expected to write to the log of this stream but it has failed',
        cause,
      );
      throw this.failure;
    });
    return this.#tail;
  }

  /** When everything is written, or has failed. */
  async close(): Promise<void> {
    await this.#tail.catch(() => {});
    await this.#file.close();
  }
}

async function keep(path: string, bytes: Buffer): Promise<void> {
  const file = await open(path, 'w');
  try {
    await file.writeFile(bytes);
    await file.datasync();
  } finally {
    await file.close();
  }
}

function encode({ position, tokens }: Entry): Buffer {
  const frame = Buffer.alloc(HEAD + 8 + 4 * tokens.length);
  frame.writeBigUInt64LE(BigInt(position), HEAD);
  for (const [i, token] of tokens.entries()) frame.writeInt32LE(token, HEAD + 8 + 4 * i);
  frame.writeUInt32LE(frame.length - HEAD, 0);
  frame.writeUInt32LE(crc32(frame.subarray(HEAD)), 4);
  return frame;
}

function decode(bytes: Buffer): { entries: Entry[]; end: number } {
  const entries: Entry[] = [];
  let end = 0;
  while (end + HEAD <= bytes.length) {
    const length = bytes.readUInt32LE(end);
    const body = bytes.subarray(end + HEAD, end + HEAD + length);
    const whole = length >= LEAST_BODY && length % 4 === 0 && body.length === length;
    if (!whole || crc32(body) !== bytes.readUInt32LE(end + 4)) break;
    const tokens = Int32Array.from({ length: (length - 8) / 4 }, (_, i) => body.readInt32LE(8 + 4 * i));
    entries.push({ position: Number(body.readBigUInt64LE(0)), tokens });
    end += HEAD + length;
  }
  return { entries, end };
}

/** Makes the names in a folder durable: of files that were made, renamed or removed there. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

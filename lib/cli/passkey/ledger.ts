import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { plural } from '../format';
import type { Cell } from './questions';

/** What a session says: the five tokens as text, and how many digits of the key they have right. */
export interface Said {
  read: string;
  right: number;
}

/** One key: what the session that read it says, and what the same one says without its memory. */
export interface Answer extends Said {
  key: string;
  place: number;
  reset: Said;
}

/** Tokens that had to be fed for something, and how long it took; what is shared counts for the first who needs it. */
export interface Cost {
  fed: number;
  seconds: number;
}

export interface FinishedCell extends Cell, Cost {
  answers: Answer[];
}

/** The control without a key: what the haystack alone makes of the question. */
export interface Untold extends Cost {
  length: number;
  tokens: number[];
  read: string;
}

/** What must be the same for two runs to be parts of one table. */
export type Identity = Record<string, string | number>;

interface Content {
  passkey: 1;
  identity: Identity;
  cells: FinishedCell[];
  untold: Untold[];
}

/** The finished parts of a table, kept in a file if there is one, so that the next run can go on from there. */
export class Ledger {
  readonly #file: string | undefined;
  readonly #content: Content;

  private constructor(file: string | undefined, content: Content) {
    this.#file = file;
    this.#content = content;
  }

  /** @throws Error when the file is of another table. */
  static open(file: string | undefined, identity: Identity): Ledger {
    const found = file !== undefined && existsSync(file) ? readContent(file) : undefined;
    for (const key of found ? Object.keys({ ...identity, ...found.identity }) : []) {
      const [then, now] = [found?.identity[key], identity[key]];
      if (then !== now) throw new Error(`${file} is of another table: its ${key} is ${then}, not ${now}`);
    }
    return new Ledger(file, found ?? { passkey: 1, identity, cells: [], untold: [] });
  }

  get size(): number {
    return this.#content.cells.length;
  }

  /** @throws Error when it was asked with another number of keys. */
  cell({ depth, length }: Cell, keys: number): FinishedCell | undefined {
    const found = this.#content.cells.find((one) => one.depth === depth && one.length === length);
    if (found && found.answers.length !== keys) {
      const has = `${depth} of ${length} tokens has ${plural(found.answers.length, 'key')}`;
      throw new Error(`${this.#file} is of another table: ${has}, not ${keys}`);
    }
    return found;
  }

  untold(length: number): Untold | undefined {
    return this.#content.untold.find((one) => one.length === length);
  }

  addCell(cell: FinishedCell): void {
    this.#content.cells.push(cell);
    this.#save();
  }

  addUntold(untold: Untold): void {
    this.#content.untold.push(untold);
    this.#save();
  }

  /** At every moment the file is either as it was or as it will be. */
  #save(): void {
    if (this.#file === undefined) return;
    const fresh = `${this.#file}.${process.pid}.new`;
    writeFileSync(fresh, `${JSON.stringify(this.#content)}\n`, { flush: true });
    renameSync(fresh, this.#file);
  }
}

function readContent(file: string): Content {
  let content: Partial<Content> | null;
  try {
    content = JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    throw new Error(`${file} can not be read as a table to resume: ${(cause as Error).message}`);
  }
  const { passkey, identity, cells, untold } = content ?? {};
  if (passkey === 1 && identity && Array.isArray(cells) && Array.isArray(untold)) return content as Content;
  throw new Error(`${file} is no table to resume`);
}

import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';

const LINE = 512;
const LINES = 64;

/** The last operations of a long random program, in a file, so that they are there when the process is not. */
export class OperationLog {
  readonly #file: number;

  constructor(path: string) {
    this.#file = openSync(path, 'w+');
  }

  record(index: number, text: string): void {
    const line = `#${index} ${text}`.replace(/[^\x20-\x7e]/g, '?').slice(0, LINE - 1);
    writeSync(this.#file, `${line.padEnd(LINE - 1)}\n`, (index % LINES) * LINE);
  }

  close(): void {
    closeSync(this.#file);
  }
}

/** What such a file says: it is a ring of numbered lines. */
export function lastOperations(path: string): string {
  try {
    const lines = readFileSync(path, 'latin1').split('\n').filter(Boolean);
    const index = (line: string) => Number(/^#(\d+)/.exec(line)?.[1]);
    return lines
      .sort((a, b) => index(a) - index(b))
      .slice(-12)
      .map((line) => line.trimEnd())
      .join('\n');
  } catch {
    return '(no log)';
  }
}

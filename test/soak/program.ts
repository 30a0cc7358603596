import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { inspect } from 'node:util';
import { OperationLog } from '../support/operation-log';
import { Rng } from '../support/rng';
import type { Crowd } from './crowd';
import { draw, type Operation, useFolder } from './operations';

function fail(error: unknown): never {
  process.stdout.write(`${inspect(error, { depth: 4 })}\n`);
  process.exit(1);
}

/**
 * A process of random operations, called with SEED SECONDS LOG and more numbers. The first error ends it with status 1, and
 * what it did last is in the log then.
 */
export class Program {
  readonly seed: number;
  readonly more: number[];
  readonly #end: number;
  readonly #log: OperationLog;
  #operations = 0;

  constructor() {
    process.on('uncaughtException', fail);
    process.on('unhandledRejection', fail);
    const [seed, seconds, log, ...more] = process.argv.slice(2);
    this.seed = Number(seed);
    this.more = more.map(Number);
    this.#end = Date.now() + Number(seconds) * 1000;
    this.#log = new OperationLog(log);
    const folder = mkdtempSync(path.join(tmpdir(), 'infini-soak-'));
    process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
    useFolder(folder);
  }

  /** How many there were. */
  get operations(): number {
    return this.#operations;
  }

  get timeIsUp(): boolean {
    return Date.now() >= this.#end;
  }

  /** The next operation, of a generator of its own: what number 1234 does depends on earlier ones as little as can be. */
  perform(crowd: Crowd, choices: readonly Operation[]): void {
    const index = this.#operations++;
    crowd.rng = new Rng(Math.imul(this.seed, 0x9e3779b1) ^ Math.imul(index, 0x85ebca6b));
    const { name, run } = draw(crowd.rng, choices);
    this.#log.record(index, name);
    try {
      run(crowd);
    } catch (error) {
      crowd.judge(name, error);
    }
  }

  /** Everything went well: says what was seen. */
  finish(crowd: Crowd, seen: object): void {
    for (const device of crowd.devices) device.close();
    process.stdout.write(`${JSON.stringify({ operations: this.#operations, ...seen, ...crowd.outcomes })}\n`);
    this.#log.close();
  }
}

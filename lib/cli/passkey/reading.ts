import type { Model, Session } from '../../index';
import type { Haystack, Text } from './haystack';
import { hide } from './haystack';
import type { Question } from './questions';
import { DIGITS, type Task } from './task';

/** A session and the document that it reads. */
export interface Reading {
  session: Session;
  text: Text;
}

// Tokens handed over at once.
const PIECE = 1 << 13;

async function* pieces(text: Text, from: number, to: number): AsyncGenerator<Int32Array> {
  for (let at = from; at < to; at += PIECE) yield text.slice(at, Math.min(at + PIECE, to));
}

/** Feeds documents to sessions and asks them, and counts the tokens. */
export class Reader {
  readonly #model: Model;
  readonly #task: Task;
  readonly #signal: AbortSignal;
  readonly #onProgress: (tokens: number) => void;
  #fed = 0;

  constructor(model: Model, task: Task, signal: AbortSignal, onProgress: (tokens: number) => void) {
    this.#model = model;
    this.#task = task;
    this.#signal = signal;
    this.#onProgress = onProgress;
  }

  /** Tokens fed to all sessions together. */
  get fed(): number {
    return this.#fed;
  }

  /** Reads on, side by side, until each session has `to` tokens. */
  async readTo(readings: readonly Reading[], to: number): Promise<void> {
    const before = this.#fed;
    const entries = readings.map(({ session, text }) => ({
      session,
      input: pieces(text, session.tokens, to),
    }));
    const onProgress = ({ tokens }: { tokens: number }) => this.#count(before + tokens);
    await this.#model.feedAll(entries, { signal: this.#signal, onProgress });
  }

  /** The five tokens that each session answers. Forks of them are asked: they themselves can read on. */
  async ask(sessions: readonly Session[], { forget = false } = {}): Promise<Int32Array[]> {
    const forks: Session[] = [];
    try {
      for (const session of sessions) forks.push(session.fork());
      if (forget) for (const fork of forks) fork.reset();
      const signal = this.#signal;
      const entries = forks.map((session) => ({ session, input: this.#task.question }));
      await this.#model.feedAll(entries, { signal });
      const answers = await this.#model.generateAll(forks, { maxTokens: DIGITS, signal });
      this.#count(this.#fed + forks.length * (this.#task.question.length + DIGITS));
      return answers.map(({ tokens }) => tokens);
    } finally {
      for (const fork of forks) fork.close();
    }
  }

  #count(fed: number): void {
    this.#fed = fed;
    this.#onProgress(fed);
  }
}

/**
 * A session for each question, all from one that reads the haystack alone: at a question's place a fork leaves it, to
 * read that statement and what follows. The caller closes them.
 */
export async function fork(
  reader: Reader,
  base: Session,
  haystack: Haystack,
  questions: readonly Question[],
): Promise<Reading[]> {
  const readings: Reading[] = [];
  using walker = base.fork();
  try {
    for (const i of [...questions.keys()].sort((a, b) => questions[a].place - questions[b].place)) {
      const { place, statement } = questions[i];
      await reader.readTo([{ session: walker, text: haystack }], place);
      readings[i] = { session: walker.fork(), text: hide(haystack, statement, place) };
    }
    return readings;
  } catch (error) {
    close(readings);
    throw error;
  }
}

export function close(readings: readonly Reading[]): void {
  for (const reading of readings) reading?.session.close();
}

import { hashText, Random } from '../random';
import type { Haystack } from './haystack';
import { DIGITS, type Task } from './task';

export const DEPTHS = ['start', 'middle', 'end'] as const;
export type Depth = (typeof DEPTHS)[number];

/** A pass key and where it is hidden: `place` is the statement's first token. */
export interface Question {
  key: string;
  place: number;
  statement: Int32Array;
}

export interface Cell {
  depth: Depth;
  length: number;
}

/** Shorter documents have no three depths: their zones would meet. */
export const LEAST_LENGTH = 2048;

/** Where a statement of so many tokens may begin, first and last place, when the question is token `asked`. */
function zone({ depth, length }: Cell, asked: number, statement: number): [least: number, most: number] {
  const middle = Math.floor(length / 2);
  const last = asked - statement;
  return {
    start: [0, 511],
    middle: [middle - 512, middle + 512],
    end: [last - 1024, last],
  }[depth] as [number, number];
}

/**
 * The questions of a cell. Each is drawn from the seed, its cell and its number alone, so that other lengths, depths and
 * numbers of keys leave it as it is. What is hidden at the start is the same at each length: a document is a prefix of
 * the longer ones, and is read once for all.
 */
export function drawQuestions(
  haystack: Haystack,
  task: Task,
  cell: Cell,
  keys: number,
  seed: number,
): Question[] {
  const { depth, length } = cell;
  return Array.from({ length: keys }, (_, i) => {
    const random = new Random(hashText(`${depth} ${depth === 'start' ? '' : length} ${i}`, seed));
    const key = Array.from({ length: DIGITS }, () => random.below(10)).join('');
    const first = depth === 'start' && i === 0;
    const place = first ? 0 : drawPlace(haystack, task, cell, task.statement(key, 1).length, random);
    return { key, place, statement: task.statement(key, place) };
  });
}

function drawPlace(haystack: Haystack, task: Task, cell: Cell, statement: number, random: Random): number {
  const [least, most] = zone(cell, cell.length - task.asking, statement);
  const places: number[] = [];
  for (let place = least; place <= most; place++) if (haystack.isBoundary(place)) places.push(place);
  if (places.length === 0)
    throw new Error(`no sentence begins at the ${cell.depth} of ${cell.length} tokens`);
  return places[random.below(places.length)];
}

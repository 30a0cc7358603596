import type { Rule } from '../../index';
import { binomialTail, CHANCE } from '../score';
import type { Answer, Cost, FinishedCell, Ledger } from './ledger';
import { paperFigure } from './paper';
import type { Depth } from './questions';
import { keysOf, type TableSettings } from './run';
import { DIGITS, type Task } from './task';
import { wilson } from './wilson';

/** A control that has more digits right than this is no guess, ... */
const MOST_SHARE = 0.3;
/** ... unless so few digits were asked that guessing does it more often than so. */
const MOST_BY_CHANCE = 1e-4;

export interface Accuracy {
  depth: Depth;
  /** Share of the digits that are right at their places; all are from 0 to 1. */
  accuracy: number;
  /** 95 %, after Wilson, for as many trials as there are keys. */
  interval: [low: number, high: number];
  /** Keys with all digits right. */
  keysRight: number;
  /** What the paper reports; null for other lengths. */
  paper: number | null;
  answers: Answer[];
}

export interface Control {
  digits: number;
  right: number;
  accuracy: number;
  /** The probability that guessing has as many right. */
  byChance: number;
  atChance: boolean;
}

export interface Row {
  length: number;
  keys: number;
  cells: Accuracy[];
  noKey: Control & { read: string };
  reset: Control;
  fed: number;
  seconds: number;
  tokensPerSecond: number;
}

export interface Summary {
  rows: Row[];
  controlsAtChance: boolean;
  total: Cost & { tokensPerSecond: number };
}

export function summarise(ledger: Ledger, settings: TableSettings, task: Task, rule: Rule): Summary {
  const rows = settings.lengths.map((length): Row => {
    const keys = keysOf(settings, length);
    const cells = settings.depths.map((depth) => ledger.cell({ depth, length }, keys) as FinishedCell);
    const untold = ledger.untold(length);
    if (!untold || cells.includes(undefined as never)) throw new Error(`${length} tokens are not finished`);
    const answers = cells.flatMap((cell) => cell.answers);
    const noKey = answers.map(({ key }) => task.right(key, untold.tokens));
    const reset = answers.map((answer) => answer.reset.right);
    return {
      length,
      keys,
      cells: cells.map((cell) => accuracyOf(cell, rule)),
      noKey: { read: untold.read, ...controlOf(noKey) },
      reset: controlOf(reset),
      ...rateOf([...cells, untold]),
    };
  });
  return {
    rows,
    controlsAtChance: rows.every(({ noKey, reset }) => noKey.atChance && reset.atChance),
    total: rateOf(rows),
  };
}

const sum = (values: number[]): number => values.reduce((total, value) => total + value, 0);

function accuracyOf({ depth, length, answers }: FinishedCell, rule: Rule): Accuracy {
  const accuracy = sum(answers.map(({ right }) => right)) / (DIGITS * answers.length);
  const paper = paperFigure(rule, { depth, length });
  return {
    depth,
    accuracy,
    interval: wilson(accuracy, answers.length),
    keysRight: answers.filter(({ right }) => right === DIGITS).length,
    paper: paper === undefined ? null : paper / 100,
    answers,
  };
}

/** The keys were drawn independently of what a control says: guessing is exactly binomial. */
export function controlOf(rights: number[]): Control {
  const digits = DIGITS * rights.length;
  const right = sum(rights);
  const accuracy = right / digits;
  const byChance = binomialTail(digits, right, CHANCE);
  return {
    digits,
    right,
    accuracy,
    byChance,
    atChance: accuracy <= MOST_SHARE || byChance > MOST_BY_CHANCE,
  };
}

function rateOf(costs: readonly Cost[]): Cost & { tokensPerSecond: number } {
  const fed = sum(costs.map((cost) => cost.fed));
  const seconds = sum(costs.map((cost) => cost.seconds));
  return { fed, seconds, tokensPerSecond: fed / seconds };
}

import type { Rule } from '../../index';
import { type Cell, DEPTHS } from './questions';

/** Table 3 of arXiv 2404.07143v2, fine-tuned: percent of tokens right at the start, in the middle and at the end. */
const TABLE_3: Record<Rule, Record<number, readonly number[]>> = {
  linear: {
    [32 << 10]: [100, 100, 100],
    [128 << 10]: [100, 100, 100],
    [256 << 10]: [100, 100, 100],
    [512 << 10]: [97, 99, 100],
    [1 << 20]: [96, 94, 100],
  },
  delta: {
    [32 << 10]: [100, 100, 100],
    [128 << 10]: [100, 100, 99],
    [256 << 10]: [100, 100, 99],
    [512 << 10]: [100, 100, 100],
    [1 << 20]: [100, 100, 100],
  },
};

/** What the paper reports, in percent; undefined for other lengths. */
export const paperFigure = (rule: Rule, { depth, length }: Cell): number | undefined =>
  TABLE_3[rule][length]?.[DEPTHS.indexOf(depth)];

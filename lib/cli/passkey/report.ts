import { bytes, count, lengthName, plural, table } from '../format';
import type { Machine } from '../machine';
import { type HeatMap, heatMapSvg } from '../report/heat-map';
import { htmlTable, page, paragraph } from '../report/page';
import type { TableSettings } from './run';
import type { Accuracy, Control, Summary } from './summary';

/** All that `--json` prints. */
export interface PasskeyResult extends Machine, Summary {
  model: { name: string; rule: string; sha256: Record<string, string> };
  settings: TableSettings;
  /** Of one session, at every length. */
  stateBytes: number;
}

const TITLE = 'Pass-key retrieval';
const METHOD = [
  'Percent of the digits right at their places; in brackets 95 % intervals after Wilson, with one key as one trial: the ' +
    'digits of a key depend on each other.',
  'Lengths are in tokens, question and answer included (K = 1,024). Start: the statement begins within the first 512 ' +
    'tokens; middle: within 512 of the middle; end: it ends within the last 1,024 before the question.',
  'Paper: the fine-tuned 1B models of arXiv 2404.07143, Table 3.',
  'No key: the same questions about a haystack without a statement; reset: asked of the same sessions, emptied before. ' +
    'Guessing is right for 10 %.',
  'Tokens fed: a beginning that several documents share is fed once.',
];

export function textReport(result: PasskeyResult): string {
  return [
    TITLE,
    '',
    table(facts(result), '<<'),
    '',
    table(accuracies(result), '>'.repeat(11)),
    '',
    table(controls(result), '>>>>>>'),
    '',
    ...METHOD.flatMap((line) => wrap(line, 96)),
    ...(result.controlsAtChance ? [] : ['', `CONTROL FAILED: ${FAILED}`]),
  ].join('\n');
}

export function htmlReport(result: PasskeyResult): string {
  const verdict = result.controlsAtChance ? [] : [paragraph(`CONTROL FAILED: ${FAILED}`, 'failed')];
  return page(
    TITLE,
    [
      ...verdict,
      heatMapSvg(heatMap(result)),
      htmlTable(accuracies(result)),
      '<h2>Controls and cost</h2>',
      htmlTable(controls(result)),
      '<h2>Method</h2>',
      ...METHOD.map((line) => paragraph(line)),
      '<h2>Run</h2>',
      htmlTable([['', ''], ...facts(result)]),
    ].join('\n'),
  );
}

const FAILED =
  'a session that can not know the keys says more of them than a guess; the table proves nothing.';

function facts({ model, settings, stateBytes, total, ...machine }: PasskeyResult): string[][] {
  const hashes = Object.entries(model.sha256).filter(([name]) => name.endsWith('.safetensors'));
  return [
    ['model', `${model.name}, rule ${model.rule}`],
    ...hashes.map(([name, hash]) => ['', `${name} ${hash.slice(0, 16)}`]),
    ['haystack', `${settings.haystack}, drawn with --seed ${settings.seed}`],
    ['state', `${bytes(stateBytes)} for each session, at every length`],
    [
      'fed',
      `${count(total.fed)} tokens in ${total.seconds.toFixed(1)} s: ${count(total.tokensPerSecond)} tokens/s`,
    ],
    ['machine', `${machine.cpu}, device ${machine.device.id}, Node ${machine.node}`],
    ['version', `infini-stream ${machine.version}, ${machine.date}`],
  ];
}

const percent = (share: number): string => (100 * share).toFixed(1);
const interval = ({ interval: [low, high] }: Accuracy): string => `[${percent(low)}, ${percent(high)}]`;

function accuracies({ rows, settings }: PasskeyResult): string[][] {
  const heading = ['length', 'keys', ...settings.depths.flatMap((depth) => [depth, '95 %', 'paper'])];
  const body = rows.map(({ length, keys, cells }) => [
    lengthName(length),
    String(keys),
    ...cells.flatMap((cell) => [
      percent(cell.accuracy),
      interval(cell),
      cell.paper === null ? '-' : String(Math.round(100 * cell.paper)),
    ]),
  ]);
  return [heading, ...body];
}

function controls({ rows }: PasskeyResult): string[][] {
  const share = (control: Control) => `${percent(control.accuracy)}${control.atChance ? '' : ' FAILED'}`;
  const body = rows.map(({ length, noKey, reset, fed, seconds, tokensPerSecond }) => [
    lengthName(length),
    share(noKey),
    share(reset),
    count(fed),
    seconds.toFixed(1),
    count(tokensPerSecond),
  ]);
  return [['length', 'no key', 'reset', 'tokens fed', 'seconds', 'tokens/s'], ...body];
}

function heatMap({ rows, settings, model }: PasskeyResult): HeatMap {
  return {
    title: `Digits right by depth and length, rule ${model.rule}`,
    rowTitle: 'depth',
    rows: settings.depths,
    columnTitle: 'tokens',
    columns: rows.map(({ length }) => lengthName(length)),
    cells: settings.depths.map((_, depth) =>
      rows.map(({ keys, cells }) => {
        const cell = cells[depth];
        const note = `${cell.keysRight} of ${plural(keys, 'key')} right, 95 % ${interval(cell)}`;
        return { share: cell.accuracy, label: percent(cell.accuracy), note };
      }),
    ),
  };
}

/** Lines of at most so many characters. */
function wrap(text: string, width: number): string[] {
  const lines = [''];
  for (const word of text.split(' ')) {
    const last = lines[lines.length - 1];
    if (last !== '' && last.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = last === '' ? word : `${last} ${word}`;
  }
  return lines.map((line) => `  ${line}`);
}
